"""A tool in one file, to be carried from one project to another and proven again where it arrives.

    morphogen crystal 1
    sha256 <64 hexadecimal digits of the body>
    ed25519 <public key> <signature>            or: unsigned
    <the body, MessagePack>

The body is a small log: the events of the tool's making (asked for, drafted, each stage of the gauntlet, registered) and
those of the held-out executions that it was proven on, their values inlined. So a package is read by the same upcasters
as the log, and holds all that is needed to judge the tool again; the judgement that travels with it is not believed.
The same version gives the same bytes. Reading allocates no more than the file is large, and raises BadPackage in one
line for whatever is not a whole and unaltered package.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from morphogen.consumers.executions import At, Families, Trace, tool_name
from morphogen.schemas import (
    CrystalChecked,
    CrystalDrafted,
    CrystalRegistered,
    CrystalRequested,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    Unknown,
    decode_event,
    encode,
)
from morphogen.schemas.goals import signature

from .errors import BadPackage, KeyRefused
from .package_values import odd_maker, odd_parameter, odd_trace, too_deep
from .source import source_sha256

if TYPE_CHECKING:
    from .past import Past
    from .registry import Version

MAGIC = b"morphogen crystal 1\n"
ENDING = ".crystal"
LARGEST = 64 << 20  # bytes of a file
MOST = 500  # executions in it
_LINE = 300  # bytes of a line of the head
_SHA256 = re.compile(rb"sha256 ([0-9a-f]{64})")
_SIGNED = re.compile(rb"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})")
_E = TypeVar("_E", bound=Event)


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    version: int
    body: msgspec.Raw


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    template: str
    making: list[_Record]
    traces: list[list[_Record]]


_DECODER = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True)
class Package:
    """One version of a tool with its past. `signer` is the public key that vouches for the file, if one does."""

    template: str
    requested: CrystalRequested
    drafted: CrystalDrafted
    checked: tuple[CrystalChecked, ...]
    registered: CrystalRegistered
    traces: tuple[Trace, ...]
    sha256: str = ""
    signer: str | None = None

    @property
    def name(self) -> str:
        """What the file is called where nobody says otherwise."""
        return f"{self.registered.tool}-v{self.registered.number}{ENDING}"


def package_of(past: "Past", version: "Version", most: int = 50, brought: Package | None = None) -> Package:
    """Return the package of a version: what the log holds of its making, and its newest held-out executions.

    `brought` is the package that an imported tool came in, as the log does not hold what is in it (`brought_by` names its
    blob). Raises BadPackage where too little of it is left.
    """
    made = version.made
    attempt = past.registry.attempts.get(made.attempt)
    where = f"{made.tool} version {made.number} cannot be exported"
    if attempt is None or attempt.requested is None or attempt.drafted is None:
        raise BadPackage(f"{where}: the log holds nothing of its making")
    template = past.families.template(made.signature) or (None if brought is None else brought.template)
    known = {} if brought is None else {one.execution: one for one in brought.traces}
    found = [known.get(one) or past.families.trace(one) for one in attempt.requested.held_out]
    traces = [one for one in found if one is not None and one.whole and one.ok]
    if template is None or not traces:
        raise BadPackage(f"{where}: none of the executions that it was proven on is left in the log")
    return Package(
        template=template,
        requested=attempt.requested,
        drafted=attempt.drafted,
        checked=tuple(one for one in attempt.checked if one.stage not in {"shadow", "promotion"}),
        registered=made,
        traces=tuple(traces[-min(most, MOST) :]),
    )


def brought_by(version: "Version") -> str | None:
    """Return the blob of the package that a version came in; None where it was made here."""
    said = version.made.provenance.get("imported")
    blob = said.get("blob") if isinstance(said, dict) else None
    return blob if isinstance(blob, str) else None


def pack(package: Package, key: bytes | None = None) -> bytes:
    """Return the file of a package, signed where a private key (32 bytes) is given. Raises BadPackage, KeyRefused."""
    fault = _fault(package)
    if fault is not None:
        raise BadPackage(f"{package.registered.tool} cannot be exported: {fault}")
    making: list[Event] = [package.requested, package.drafted, *package.checked, package.registered]
    body = encode(
        {
            "template": package.template,
            "making": [_told(event) for event in making],
            "traces": [[_told(event) for event in events_of(trace)] for trace in package.traces],
        }
    )
    if len(body) > LARGEST - 3 * _LINE:
        raise BadPackage(
            f"{package.registered.tool} does not fit into {LARGEST >> 20} MiB: export it with fewer traces"
        )
    digest = hashlib.sha256(body).hexdigest()
    return b"".join([MAGIC, f"sha256 {digest}\n".encode(), _vouch(digest, key), b"\n", body])


def unpack(data: bytes, *, trusted: Collection[str] | None = None) -> Package:
    """Read a package. With `trusted` public keys, it must be signed by one of them: by none, no package is taken.

    Raises BadPackage in one line.
    """
    if len(data) > LARGEST:
        raise BadPackage(f"the package has {len(data):,} bytes, and {LARGEST:,} is the most: it is none of ours")
    if not data.startswith(MAGIC):
        known = data.startswith(b"morphogen crystal ")
        raise BadPackage(
            "the package is of another version of the format: export it again with this version"
            if known
            else "this is no package of a tool: it does not begin with 'morphogen crystal 1'"
        )
    first, second, body = _head(data)
    stated = _SHA256.fullmatch(first)
    if stated is None:
        raise BadPackage("the package's second line is not its sha256: the file is damaged; fetch it again")
    digest = hashlib.sha256(body).hexdigest()
    if digest != stated[1].decode():
        raise BadPackage("the package does not fit its sha256: it was cut off or altered; fetch it again")
    signer = _signer(second, digest, trusted)
    return _package(body, digest, signer)


def read_package(path: str | Path, *, trusted: Collection[str] | None = None) -> Package:
    """Read the package in a file; see `unpack`. Raises BadPackage that names the file."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise BadPackage(f"{path}: {error.strerror or 'it cannot be read'}") from error
    try:
        return unpack(data, trusted=trusted)
    except BadPackage as fault:
        raise BadPackage(f"{path}: {fault}") from fault.__cause__


def _head(data: bytes) -> tuple[bytes, bytes, bytes]:
    ends = []
    at = len(MAGIC)
    for _ in range(2):
        end = data.find(b"\n", at, at + _LINE)
        if end < 0:
            raise BadPackage("the package's head is not whole: the file is damaged; fetch it again")
        ends.append((at, end))
        at = end + 1
    return data[slice(*ends[0])], data[slice(*ends[1])], data[at:]


def _vouch(digest: str, key: bytes | None) -> bytes:
    if key is None:
        return b"unsigned"
    keys = _keys()
    try:
        return f"ed25519 {keys.public_key(key)} {keys.sign(key, _message(digest))}".encode()
    except keys.KeyRefused as refusal:
        raise KeyRefused(str(refusal)) from None


def _keys() -> ModuleType:
    try:
        return import_module("morphogen.kernels.blueprints.signing")
    except ImportError as missing:  # its own message names the extra
        raise KeyRefused(str(missing)) from None


def _message(digest: str) -> bytes:
    return MAGIC + f"sha256 {digest}\n".encode()


def _signer(line: bytes, digest: str, trusted: Collection[str] | None) -> str | None:
    if trusted is not None and not trusted:
        raise BadPackage("no key is trusted here, so no package is taken: name one that is")
    if line == b"unsigned":
        if trusted is not None:
            raise BadPackage("the package is unsigned, and keys are set: have it signed by one of them")
        return None
    found = _SIGNED.fullmatch(line)
    if found is None:
        raise BadPackage("the package's third line is no signature: the file is damaged; fetch it again")
    key, written = found[1].decode(), found[2].decode()
    if not _keys().signed(key, written, _message(digest)):
        raise BadPackage(f"the package's signature is not by the key {key[:16]}...: it was altered")
    if trusted is not None and key not in trusted:
        raise BadPackage(f"the package is signed by {key[:16]}..., which is not among the trusted keys")
    return key


def _package(body: bytes, digest: str, signer: str | None) -> Package:
    try:
        found = _DECODER.decode(body)
        making = [_event(record) for record in found.making]
        traces = tuple(_trace([_event(record) for record in records]) for records in found.traces)
    except BadPackage:
        raise
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError, TypeError, OverflowError) as error:
        raise BadPackage(f"the package's body is no tool: {_line(error)}") from error
    package = Package(
        template=found.template,
        requested=_one(making, CrystalRequested),
        drafted=_one(making, CrystalDrafted),
        checked=tuple(event for event in making if isinstance(event, CrystalChecked)),
        registered=_one(making, CrystalRegistered),
        traces=traces,
        sha256=digest,
        signer=signer,
    )
    if len(making) != len(package.checked) + 3:
        raise BadPackage("the package holds events that are no part of a tool's making")
    fault = _fault(package)
    if fault is not None:
        raise BadPackage(f"the package contradicts itself: {fault}")
    return package


def _fault(package: Package) -> str | None:
    """Say where a package does not agree with itself, or holds what no tool has; None where it does not."""
    made, drafted = package.registered, package.drafted
    family = signature(package.template)
    if made.signature != family or package.requested.signature != family:
        return f"its template is not that of {made.signature[:40]!r}"
    if made.tool != tool_name(family) or package.requested.tool != made.tool:
        return f"the tool {made.tool[:40]!r} is not named after its family"
    if made.number < 1:
        return f"its version is {made.number}"
    if len({made.attempt, drafted.attempt, package.requested.attempt, *(one.attempt for one in package.checked)}) != 1:
        return "its events are of several attempts"
    if made.source != drafted.source or made.entry != drafted.entry:
        return "what was registered is not what was drafted"
    if not made.source_sha256 == drafted.source_sha256 == source_sha256(made.source):
        return "its text does not fit its sha256"
    if not package.traces:
        return "it holds no executions to prove it on"
    if len(package.traces) > MOST:
        return f"it holds {len(package.traces)} executions, and {MOST} are the most"
    held_out = set(package.requested.held_out)
    for trace in package.traces:
        if trace.signature != family:
            return f"the execution {trace.execution[:40]!r} is of another family"
        if trace.execution not in held_out:
            return f"the execution {trace.execution[:40]!r} was not held out"
    if len({trace.execution for trace in package.traces}) != len(package.traces):
        return "it holds an execution twice"
    faults = (
        too_deep([package.requested, drafted, *package.checked, made]),
        *map(odd_maker, (package.requested.maker, drafted.maker)),
        *map(odd_parameter, (*drafted.params, *made.params)),
        *map(odd_trace, package.traces),
    )
    return next((fault for fault in faults if fault is not None), None)


def events_of(trace: Trace) -> list[Event]:
    """Return an execution as the events of one: begun, each step, ended as it is judged at present, all values inlined."""
    steps = [
        ExecutionStep(**{**_fields(step, ExecutionStep), "execution": trace.execution, "result_blob": None})
        for step in trace.steps
    ]
    ended = {**_fields(trace, ExecutionFinished), "outcome": trace.outcome or "failure", "output_blob": None}
    ended |= {"steps": len(steps), "duration_ns": trace.duration_ns or 0}
    return [ExecutionStarted(**_fields(trace, ExecutionStarted)), *steps, ExecutionFinished(**ended)]


def _fields(holder: object, kind: type[Event]) -> dict[str, Any]:
    """Return what an object has of an event's fields; mappings as plain dicts."""
    found = {name: getattr(holder, name) for name in kind.__struct_fields__ if hasattr(holder, name)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def _trace(events: Sequence[Event]) -> Trace:
    if [type(event) for event in (*events[:1], *events[-1:])] != [ExecutionStarted, ExecutionFinished]:
        raise BadPackage("the package holds an execution that does not begin and end")
    families = Families()
    for at, event in enumerate(events):
        if getattr(event, "execution", None) != getattr(events[0], "execution", ""):
            raise BadPackage("the package mixes several executions")
        families.seen(event, At(0, at))
    assert isinstance(events[0], ExecutionStarted)
    trace = families.trace(events[0].execution)
    if trace is None or not trace.whole or not trace.ok:
        raise BadPackage(f"the execution {events[0].execution[:40]!r} is not whole, or did not succeed")
    return trace


def _told(event: Event) -> dict[str, Any]:
    return {"type": event.type, "version": event.version, "body": msgspec.Raw(event.encode())}


def _event(record: _Record) -> Event:
    event = decode_event(record.type, record.version, record.body)
    if isinstance(event, Unknown):
        raise BadPackage(f"the package holds a {record.type[:60]!r} that cannot be read: {event.reason}")
    return event


def _one(events: Iterable[Event], kind: type[_E]) -> _E:
    found = [event for event in events if isinstance(event, kind)]
    if len(found) != 1:
        raise BadPackage(f"the package holds {len(found)} events {kind.type}, and one is asked for")
    return found[0]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
