"""The life of one worker: hear a job, run the tool, answer once.

Nothing here is a boundary: the tool runs in this very interpreter, and what it does to these functions it does to itself.
"""

import builtins
import marshal
import posix
import sys

from .codec import Encoded, decode, encode

CHANNEL = 3
TOOL = "<tool>"
_MAX_FRAME = 1 << 30

Limits = dict[str, int]

TYPE_CHECKING = False  # the real one would import `typing`, which takes longer than all else here
if TYPE_CHECKING:
    from types import CodeType


class ToolError(Exception):
    """A capability refused, or a declared tool failed: the message says which, and why."""


def send(message: dict[str, object], limit: int) -> None:
    """Write one frame: four bytes of length, then MessagePack."""
    body = encode(message, limit)
    data = memoryview(len(body).to_bytes(4, "little") + body)
    while data:
        data = data[posix.write(CHANNEL, data) :]


def receive() -> dict[str, object]:
    """Read one frame; SystemExit where the host has hung up."""
    body = _exactly(int.from_bytes(_exactly(4), "little"))
    message = decode(body, _MAX_FRAME)
    assert isinstance(message, dict)
    return message


def _exactly(size: int) -> bytes:
    pieces = []
    while size:
        piece = posix.read(CHANNEL, min(size, 1 << 20))
        if not piece:
            posix._exit(0)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class Printed:
    """Stands for `sys.stdout`: keeps the first `limit` characters, and lets the rest go."""

    encoding = "utf-8"

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.pieces: list[str] = []
        self.cut = False

    def write(self, text: str) -> int:
        """Keep what still fits."""
        kept = text[: self.left]
        self.left -= len(kept)
        self.cut = self.cut or len(kept) < len(text)
        if kept:
            self.pieces.append(kept)
        return len(text)

    def flush(self) -> None:
        """Do nothing: there is nowhere to flush to."""


_REHEARSAL = '''
"""What tools do: read a table and a document, pick, sort, add up, fail and answer."""
def parts(a: list[str], many: int = 12) -> dict[str, object]:
    """Return something."""
    print(a)
    rows = [dict(zip(("name", "size", "text"), (f"{name}{at}", str(at / 7), "x" * at))) for at in range(many) for name in a]
    best = min(rows, key=lambda row: float(row["size"]))
    sums = {name: sum(float(row["size"]) for row in rows if row["name"].startswith(name)) for name in sorted(a)}
    return {"best": best["name"], "sums": sums, "mean": round(sum(sums.values()) / len(sums), 4), "all": rows}
def run(a):
    found = parts(a)
    for module in ("csv", "json"):
        try:
            __import__(module)
        except ImportError:
            return found
    import csv, json
    text = chr(10).join(",".join(row.values()) for row in found["all"])
    rows = list(csv.DictReader(text.splitlines()))
    again = json.loads(json.dumps({"rows": rows, "a": [1, 2.5, None, True]}))
    try:
        return [again, None][2]
    except IndexError as error:
        return {"a": [len(rows), 2.5, str(error)], "b": f"{a}"}
'''


def rehearsal() -> bytes:
    """Compile what `rehearse` runs: once, in the process that forks the workers."""
    return marshal.dumps(compile(_REHEARSAL, TOOL, "exec", dont_inherit=True))


def rehearse(limits: Limits, code: bytes) -> None:
    """Run a tool of no consequence: the memory that a job will write to becomes this process's own before it comes."""
    job: dict[str, object] = {"source": "", "code": code, "keep": 0}
    job |= {"entry": "run", "arguments": {"a": ["b", "c"]}, "stubs": ["x"]}
    printed, shown = Printed(limits["printed_chars"]), sys.stdout
    sys.stdout = printed
    heard = decode(encode(job, _MAX_FRAME), _MAX_FRAME)
    assert isinstance(heard, dict)
    encode(_with_printed({"value": _run(heard, limits)}, printed), _MAX_FRAME)
    sys.stdout = shown


def work(limits: Limits) -> None:
    """Hear one job and answer it; never returns to the caller's code with the tool's failure."""
    job = receive()
    printed = Printed(limits["printed_chars"])
    sys.stdout = sys.stderr = printed
    try:
        value = _run(job, limits)
        answer: dict[str, object] = {"t": "done", "value": Encoded(encode(value, limits["value_bytes"]))}
        send(_with_printed(answer, printed), 1 << 30)
    except BaseException as error:  # noqa: BLE001 - whatever a tool raises is its answer
        _answer_failure(error, printed)
    _exactly(1)  # until the host has read what this cost, and hangs up


def _with_printed(answer: dict[str, object], printed: Printed) -> dict[str, object]:
    text = "".join(printed.pieces).encode("utf-8", "replace").decode("utf-8")
    return {**answer, "printed": text, "cut": printed.cut}


def _answer_failure(error: BaseException, printed: Printed) -> None:
    name, message, line = "Exception", "", None
    try:
        name = type(error).__name__
        line = _line(error)
        message = str(error)[:2000].encode("utf-8", "replace").decode("utf-8")
    except BaseException:  # noqa: BLE001 - an error whose text cannot be had is told by its name
        message = message or "the error could not be turned into text"
    error.__traceback__ = None  # let go of what the tool held: the answer itself needs memory
    answer: dict[str, object] = {"t": "fail", "type": name[:200], "message": message, "line": line}
    try:
        send(_with_printed(answer, printed), 1 << 24)
    except BaseException:  # noqa: BLE001 - out of memory, most likely
        send({**answer, "message": message[:200], "printed": "", "cut": True}, 1 << 24)


def _line(error: BaseException) -> int | None:
    found = error.lineno if isinstance(error, SyntaxError) and error.filename == TOOL else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TOOL:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _run(job: dict[str, object], limits: Limits) -> object:
    space: dict[str, object] = {"__name__": "tool", "__builtins__": builtins, "ToolError": ToolError}
    names = job["stubs"]
    assert isinstance(names, list)
    for name in names:
        _bind(space, name, limits["value_bytes"])
    # The tool itself: this process was sealed before it heard of it, runs nothing else, and is killed when it has answered.
    exec(_code(job), space)  # noqa: S102
    entry = job["entry"]
    function = space.get(entry) if isinstance(entry, str) else None
    if not callable(function):
        raise NameError(f"the tool defines no function {entry!r}")
    arguments = job["arguments"]
    assert isinstance(arguments, dict)
    return function(**arguments)


def _code(job: dict[str, object]) -> "CodeType":
    """Compile the text, and give the host the result for the next worker; or take what an earlier worker gave.

    Where the host would keep it, it is told in any case, and before the text runs: what a tool could say of it comes too late.
    """
    code, source = job["code"], job["source"]
    if isinstance(code, bytes):
        found: CodeType = marshal.loads(code)  # noqa: S302  of a worker as sealed as this one, before the text had run
        return found
    assert isinstance(source, str)
    shown, sys.stderr = sys.stderr, None  # the compiler's warnings would be printed by the first worker alone
    compiled = compile(source, TOOL, "exec", dont_inherit=True)
    sys.stderr = shown
    keep = job["keep"]
    assert isinstance(keep, int)
    if keep:
        data = marshal.dumps(compiled)
        send({"t": "compiled", "code": data if len(data) <= keep else b""}, _MAX_FRAME)
    return compiled


class Group:
    """The first part of a dotted name: `files` of `files.read_text`."""


def _bind(space: dict[str, object], name: str, limit: int) -> None:
    def stub(*args: object, **kwargs: object) -> object:
        send({"t": "call", "name": name, "args": list(args), "kwargs": kwargs}, limit)
        reply = receive()
        if "error" in reply:
            raise ToolError(str(reply["error"]))
        return reply["value"]

    stub.__name__ = stub.__qualname__ = name
    *groups, last = name.split(".")
    if not groups:
        space[last] = stub
        return
    place = space.setdefault(groups[0], Group())
    for part in groups[1:]:
        if not hasattr(place, part):
            setattr(place, part, Group())
        place = getattr(place, part)
    setattr(place, last, stub)


def ready(held: dict[str, str]) -> None:
    """Tell the host which layers hold, before a job is heard."""
    send({"t": "ready", "layers": held}, 1 << 20)


def prepare(modules: list[str]) -> list[str]:
    """Import what tools may use, while there are files to import from; return what could not be had."""
    missing = []
    for name in modules:
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 - a module that this interpreter was built without
            missing.append(name)
    return missing
