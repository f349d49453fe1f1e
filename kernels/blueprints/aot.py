"""Compiled packages: native code, so only what a trusted key has signed is ever opened.

`compile_package` makes a `.pt2` by torch's ahead-of-time compiler, with its weights inside, and a `.pt2.sig` beside it.
`load_package` checks signature and sha256 before torch sees a byte, and then loads its own private copy, so that the
file cannot be changed between check and use. A package is for inference, on the kind of processor that it was made for.
"""

import hashlib
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from .artifact import Artifact
from .errors import MissingExtra, PackageRefused
from .signing import public_key, sign, signed, trusted_keys

try:
    import torch
except ImportError as missing:
    raise MissingExtra("compiled packages need torch: pip install 'morphogen[adapt]'") from missing

MAX_SIGNATURE = 64 * 1024
MAX_PACKAGE = 4 << 30
MAX_BATCH = 1 << 20
_FORMAT = 1


class PackageManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package was made of, and for."""

    format: int
    artifact: str  # address
    blueprint: str  # address
    sha256: str
    size: int
    torch: str
    device: str
    machine: str
    dtype: str


class _Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    manifest: str
    signer: str
    signature: str


class Package:
    """A loaded package: call it with a batch."""

    def __init__(self, manifest: PackageManifest, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.manifest = manifest
        self._run = run

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the package's result for a batch, without gradients."""
        with torch.no_grad():
            return self._run(x)


def compile_package(
    artifact: Artifact,
    path: str | os.PathLike[str],
    *,
    key: bytes,
    dtype: torch.dtype | None = None,
    options: dict[str, Any] | None = None,
) -> PackageManifest:
    """Compile an artifact for this machine's processor, and sign the result; takes tens of seconds and a C++ compiler.

    The batch stays open up to `MAX_BATCH`; of a sequence, so does nothing else: it keeps the blueprint's length.

    Args:
        artifact: What to compile.
        path: Where the package goes; `<path>.sig` goes beside it.
        key: The private key to sign with.
        dtype: Of weights and input; float32 when None.
        options: Settings for torch's compiler, such as `{"aot_inductor.compile_wrapper_opt_level": "O0"}`.

    Raises:
        PackageRefused: it could not be compiled here, or leaves the length of a sequence open.
        KeyRefused: the key is not one.
    """
    signer = public_key(key)
    target = Path(path)
    shape = artifact.blueprint.inputs
    if None in shape:
        raise PackageRefused(
            f"blueprint {artifact.blueprint.name} leaves its length open: compile one with a fixed length"
        )
    width = dtype or torch.float32
    module = artifact.build(dtype=width).eval()
    example = torch.zeros(2, *(extent for extent in shape if extent is not None), dtype=width)
    with tempfile.TemporaryDirectory(prefix="morphogen-aot-") as scratch, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=FutureWarning
        )  # torch's export calls parts of torch that it deprecates
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        made = Path(scratch) / "package.pt2"
        try:
            from torch._inductor import aoti_compile_and_package
            from torch.export import Dim, export

            program = export(module, (example,), dynamic_shapes=({0: Dim("batch", min=1, max=MAX_BATCH)},))
            aoti_compile_and_package(program, package_path=str(made), inductor_configs=dict(options or {}))
            data = made.read_bytes()
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise PackageRefused(f"blueprint {artifact.blueprint.name} does not compile here: {reason}") from error
    manifest = PackageManifest(
        format=_FORMAT,
        artifact=artifact.address,
        blueprint=artifact.manifest.blueprint,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        dtype=str(width).removeprefix("torch."),
        **_here(),
    )
    text = msgspec.json.encode(manifest, order="sorted")
    note = _Signature(manifest=text.decode(), signer=signer, signature=sign(key, text))
    target.write_bytes(data)
    _beside(target).write_bytes(msgspec.json.encode(note))
    return manifest


def load_package(path: str | os.PathLike[str], *, trusted: Iterable[str], artifact: str | None = None) -> Package:
    """Load a package that a trusted key has signed.

    Args:
        path: The package; `<path>.sig` lies beside it.
        trusted: Public keys; with none, everything is refused.
        artifact: The address that it must have been compiled from, if one is expected.

    Raises:
        PackageRefused: it is unsigned, changed, signed by a stranger, or made for another torch, device or processor.
        KeyRefused: a trusted key is not one.
    """
    keys = trusted_keys(trusted)
    target = Path(path)
    where = f"package {path}"
    note = _signature(_read(_beside(target), MAX_SIGNATURE, f"{where}: its signature"), where)
    text = note.manifest.encode()
    if note.signer not in keys:
        raise PackageRefused(f"{where} is not signed by a trusted key: compiled code is loaded from trusted keys only")
    if not signed(note.signer, note.signature, text):
        raise PackageRefused(f"{where} has a signature that is not good: it was changed after it was signed")
    try:
        manifest = msgspec.json.decode(text, type=PackageManifest)
    except msgspec.DecodeError as error:
        raise PackageRefused(f"{where} has a bad manifest: {str(error)[:200]}") from None
    if manifest.format != _FORMAT:
        raise PackageRefused(f"{where} has format {manifest.format}, this version reads {_FORMAT}: update Morphogen")
    for what, value in _here().items():
        if getattr(manifest, what) != value:
            raise PackageRefused(
                f"{where} was made for {what} {getattr(manifest, what)}, here is {value}: compile it again"
            )
    if artifact is not None and manifest.artifact != artifact:
        raise PackageRefused(f"{where} was compiled from {manifest.artifact[:12]}, not from {artifact[:12]}")
    data = _read(target, min(MAX_PACKAGE, manifest.size), where)
    if len(data) != manifest.size or hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise PackageRefused(f"{where} was changed after it was signed: its sha256 is another one")
    with tempfile.TemporaryDirectory(prefix="morphogen-aot-") as scratch:
        copy = Path(scratch) / "package.pt2"
        copy.write_bytes(data)
        try:
            from torch._inductor import aoti_load_package

            run = aoti_load_package(str(copy))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise PackageRefused(f"{where} does not load here: {reason}") from error
    return Package(manifest, run)


def _here() -> dict[str, str]:
    processor = torch.backends.cpu.get_cpu_capability()
    return {"torch": str(torch.__version__), "device": "cpu", "machine": f"{platform.machine()} {processor}"}


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def _read(path: Path, limit: int, where: str) -> bytes:
    try:
        if not path.is_file():
            raise PackageRefused(f"{where} is missing: sign packages by compile_package()")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise PackageRefused(f"{where} cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise PackageRefused(f"{where} is longer than {limit} bytes")
    return data


def _signature(data: bytes, where: str) -> _Signature:
    try:
        found = msgspec.json.decode(data, type=_Signature)
        found.manifest.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise PackageRefused(f"{where}: its signature file is not one: sign packages by compile_package()") from None
    return found
