"""An artifact: a blueprint and its weights in one safetensors file, with what is needed to check it in the header.

The header's metadata holds `morphogen`, the manifest as canonical JSON, and where it was signed `signer` and `signature`
over the manifest's bytes. The manifest holds the sha256 of the tensors, so the signature covers all. Loading decodes
data: no code of the file is run, nothing is unpickled, and no more memory is taken than the blueprint asks for.
"""

import base64
import binascii
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from .blueprint import Blueprint, address, decode, encode, shape_text
from .building import skeleton
from .errors import ArtifactRefused, InvalidBlueprint, MissingExtra, UnfitBlueprint
from .ops import Shape
from .shape_rules import shape_of
from .signing import sign, signed, trusted_keys
from .validation import same, validate

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as read_tensors
    from safetensors.torch import save as write_tensors
except ImportError as missing:
    raise MissingExtra("artifacts need torch and safetensors: pip install 'morphogen[adapt]'") from missing

MAX_HEADER = 1 << 20
_FORMAT = 1
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artifact says of itself; all of it is checked against the file when it is read."""

    format: int
    name: str
    blueprint: str  # address
    spec: str  # the blueprint's bytes in base64
    in_shape: list[int | None]
    out_shape: list[int | None]
    dtypes: dict[str, str]
    device: str  # any, or the type of torch device that it needs, such as cuda
    tensors: str  # sha256
    note: dict[str, str] = {}


class Artifact:
    """A checked artifact. Its tensors are shared by all who hold it: `build` copies them, do not write into them."""

    def __init__(
        self, manifest: Manifest, blueprint: Blueprint, tensors: Mapping[str, torch.Tensor], signer: str | None
    ) -> None:
        self.manifest = manifest
        self.blueprint = blueprint
        self.tensors = tensors
        self.signer = signer
        """The public key that signed it; that the signature is good was checked, whether to trust the key was asked if `trusted` was given."""
        self.address = hashlib.sha256(_canonical(manifest)).hexdigest()
        self.nbytes = sum(tensor.nbytes for tensor in tensors.values())

    def build(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.nn.Module:
        """Return a new module with a copy of the weights, in training mode.

        Raises:
            UnfitBlueprint: the artifact needs another device.
        """
        self.check(device=device)
        module = skeleton(self.blueprint)
        copies = {name: tensor.clone() for name, tensor in self.tensors.items()}
        module.load_state_dict(copies, strict=True, assign=True)
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        return module.to(device=device, dtype=dtype)

    def check(
        self,
        site_in: Shape | list[int] | None = None,
        site_out: Shape | list[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Refuse a site or a device that this artifact was not made for.

        Raises:
            UnfitBlueprint: another shape, or another type of device.
        """
        wanted = ((self.blueprint.inputs, site_in), (tuple(self.manifest.out_shape), site_out))
        for shape, site in wanted:
            if site is not None and not same(shape, tuple(site)):
                raise UnfitBlueprint(
                    f"artifact {self.address[:12]} is for {shape_text(shape)}, the site has {shape_text(tuple(site))}"
                )
        needed = self.manifest.device
        if device is not None and needed != "any" and torch.device(device).type != needed:
            raise UnfitBlueprint(
                f"artifact {self.address[:12]} needs a {needed} device, not {torch.device(device).type}"
            )


def pack(
    blueprint: Blueprint,
    weights: torch.nn.Module | Mapping[str, torch.Tensor],
    *,
    key: bytes | None = None,
    device: str = "any",
    note: Mapping[str, str] | None = None,
) -> bytes:
    """Return the bytes of an artifact.

    Args:
        blueprint: What the weights belong to.
        weights: The built module, or its state dict.
        key: A private key to sign with.
        device: `any`, or the type of device that it needs.
        note: What people want to keep with it, such as where it was trained.

    Raises:
        ArtifactRefused: the weights are not those of the blueprint, or not finite.
        InvalidBlueprint: the blueprint cannot be built.
        KeyRefused: the key is not one.
    """
    validate(blueprint)
    state = weights.state_dict() if isinstance(weights, torch.nn.Module) else dict(weights)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    where = f"weights of {blueprint.name}"
    _check_tensors(blueprint, tensors, where)
    manifest = Manifest(
        format=_FORMAT,
        name=blueprint.name,
        blueprint=address(blueprint),
        spec=base64.b64encode(encode(blueprint)).decode(),
        in_shape=list(blueprint.inputs),
        out_shape=list(shape_of(blueprint)),
        dtypes={name: _dtype_text(tensor) for name, tensor in sorted(tensors.items())},
        device=device,
        tensors=_digest(tensors),
        note=dict(note or {}),
    )
    text = _canonical(manifest)
    metadata = {"morphogen": text.decode()}
    if key is not None:
        from .signing import public_key

        metadata |= {"signer": public_key(key), "signature": sign(key, text)}
    data = write_tensors(tensors, metadata=metadata)
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ArtifactRefused(f"{where}: its header would exceed {MAX_HEADER} bytes: write a shorter note")
    return data


def save(
    path: str | os.PathLike[str],
    blueprint: Blueprint,
    weights: torch.nn.Module | Mapping[str, torch.Tensor],
    *,
    key: bytes | None = None,
    device: str = "any",
    note: Mapping[str, str] | None = None,
) -> str:
    """Write an artifact, all of it or nothing; return its address. Arguments and errors are those of `pack`."""
    data = pack(blueprint, weights, key=key, device=device, note=note)
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return unpack(data).address


def load(path: str | os.PathLike[str], *, trusted: Iterable[str] | None = None) -> Artifact:
    """Return the artifact in a file, checked whole.

    Args:
        path: A regular file.
        trusted: Public keys; where given, the artifact must be signed by one of them.

    Raises:
        ArtifactRefused: the file is not there, not a whole and unchanged artifact, or not signed as asked.
    """
    where = f"artifact {path}"
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ArtifactRefused(f"{where} is not a regular file")
            return _read(stream, found.st_size, where, trusted)
    except OSError as error:
        raise ArtifactRefused(f"{where} cannot be read: {error.strerror or error}") from None


def unpack(data: bytes, *, trusted: Iterable[str] | None = None) -> Artifact:
    """Return the artifact in these bytes, checked whole; as `load` otherwise."""
    return _read(io.BytesIO(data), len(data), "artifact of bytes", trusted)


def verify(path: str | os.PathLike[str], *, trusted: Iterable[str] | None = None) -> Manifest:
    """Check a file as `load` does, and return what it says of itself."""
    return load(path, trusted=trusted).manifest


def _read(stream: BinaryIO, size: int, where: str, trusted: Iterable[str] | None) -> Artifact:
    keys = None if trusted is None else trusted_keys(trusted)
    head = stream.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        _refuse(where, "is no safetensors file, is cut short, or has a header of more than 1 MiB")
    header = stream.read(length)
    metadata = _metadata(header, where)
    text = metadata["morphogen"].encode()
    manifest, blueprint = _manifest(text, where)
    signer = _signer(metadata, text, where)
    if keys is not None and signer not in keys:
        _refuse(
            where, "is not signed by a trusted key" if signer else "is not signed, and a trusted signature is asked for"
        )
    try:
        expected = skeleton(blueprint).state_dict()
    except (InvalidBlueprint, RuntimeError) as error:
        _refuse(where, f"cannot be built: {str(error).splitlines()[0]}")
    # Eight bytes a value is the widest that is allowed, so that a forged size is not even read.
    if size - 8 - length > 8 * sum(tensor.numel() for tensor in expected.values()):
        _refuse(where, "is longer than its blueprint's weights")
    body = stream.read(size - 8 - length)
    try:
        tensors = read_tensors(head + header + body)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        _refuse(where, f"is damaged: {str(error).splitlines()[0][:200]}")
    _check_tensors(blueprint, tensors, where)
    if {name: _dtype_text(tensor) for name, tensor in tensors.items()} != manifest.dtypes:
        _refuse(where, "has other dtypes than its manifest says")
    if _digest(tensors) != manifest.tensors:
        _refuse(where, "is damaged: its tensors do not have the sha256 that its manifest says")
    return Artifact(manifest, blueprint, tensors, signer)


def _metadata(header: bytes, where: str) -> dict[str, str]:
    try:
        parsed = json.loads(header, object_pairs_hook=_once)
        metadata = parsed["__metadata__"]
        str(metadata).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError, KeyError, TypeError):
        _refuse(where, "has a header that is not one of ours: no artifact, or a damaged one")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("morphogen"), str):
        _refuse(where, "is a safetensors file without a manifest of ours: make artifacts by save()")
    if not all(isinstance(value, str) for value in metadata.values()):
        _refuse(where, "has metadata that is not text")
    return metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _manifest(text: bytes, where: str) -> tuple[Manifest, Blueprint]:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
        blueprint = decode(base64.b64decode(manifest.spec, validate=True))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError) as error:
        _refuse(where, f"has a bad manifest: {str(error).splitlines()[0][:200]}")
    if manifest.format != _FORMAT:
        _refuse(where, f"has format {manifest.format}, this version reads {_FORMAT}: update Morphogen")
    said = (manifest.blueprint, manifest.name, tuple(manifest.in_shape), tuple(manifest.out_shape))
    if said != (address(blueprint), blueprint.name, blueprint.inputs, shape_of(blueprint)):
        _refuse(where, "has a manifest that does not agree with its own blueprint")
    if _canonical(manifest) != text:
        _refuse(where, "has a manifest that is not in canonical form")
    return manifest, blueprint


def _signer(metadata: Mapping[str, str], text: bytes, where: str) -> str | None:
    signer, signature = metadata.get("signer"), metadata.get("signature")
    if signer is None and signature is None:
        return None
    if not signed(signer or "", signature or "", text):
        _refuse(where, "has a signature that is not good: it was changed after it was signed")
    return signer


def _check_tensors(blueprint: Blueprint, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    expected = skeleton(blueprint).state_dict()
    if expected.keys() != tensors.keys():
        odd = sorted(expected.keys() ^ tensors.keys())[0]
        _refuse(where, f"does not hold the blueprint's tensors: {odd[:80]!r} is missing or too many")
    for name, tensor in tensors.items():
        like = expected[name]
        if tensor.shape != like.shape:
            _refuse(where, f"has {name} of shape {tuple(tensor.shape)}, the blueprint has {tuple(like.shape)}")
        if tensor.dtype not in (_FLOATS if like.is_floating_point() else (like.dtype,)):
            _refuse(where, f"has {name} as {_dtype_text(tensor)}: float16, bfloat16, float32 or float64 are known")
        if not bool(torch.isfinite(tensor).all()):
            _refuse(where, f"has values in {name} that are not finite")


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        line = json.dumps([name, _dtype_text(tensor), list(tensor.shape), tensor.nbytes])
        found.update(line.encode() + b"\n")
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _dtype_text(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _canonical(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="sorted")


def _refuse(where: str, reason: str) -> NoReturn:
    raise ArtifactRefused(f"{where} {reason}")
