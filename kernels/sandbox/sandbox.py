"""The sandbox: runs the text of a tool in a process that can do nothing but compute and ask.

Knows limits, layers and outcomes; knows nothing of where a tool comes from. The grammar (`check`) is separate, and no part
of the boundary: what is run here may be any Python at all.
"""

import contextlib
import os
import platform
import re
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from . import layers as layering
from .broker import Broker
from .capabilities import NONE, Capabilities
from .channel import Garbage, HungUp, Late
from .errors import BadJob, SandboxBroken, Unsupported
from .gardener import Gardener
from .inside.codec import Uncrossable, decode, encode
from .limits import Limits
from .messages import Call, Compiled, Done, Fail, decode_said
from .nursery import Exit, Nursery, Starved, Worker, single
from .outcome import Outcome, ToolFailure, Value
from .scrub import scrub
from .seccomp import program
from .vocabulary import ALWAYS, MODULES
from .waiting import Unfinished, WaitingThreads

_MAX_JOB = 64 << 20
_SOON = 0.005  # seconds after a call in which the next worker is made
_MAX_CODE = 256 << 10  # characters of a text, and bytes of what it was compiled to, that are kept
_MAX_TOLD = 16 << 10  # bytes of a message beside its value and what was printed: of an error, most of all
_MOST_CODES = 64  # texts whose compiled form is kept
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([^\n#;]+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_.]+")


class _End(NamedTuple):
    """What ended the conversation with a worker: its answer, or what it was killed for."""

    answer: Done | Fail | None
    killed_by: str | None = None
    why: str = ""


class Sandbox:
    """Runs tools, each call in a process of its own that is used once.

    Workers are forked from an interpreter that holds nothing but `modules`: with `pool` above 0 that many wait, sealed; with
    0 each is forked when its call comes. With `own_interpreter` each call starts one, which shares nothing with another,
    neither the layout of its memory nor the seed of its hashes; `pool` says nothing then. `layers` names what must hold on
    this machine: where one does not, the first call raises LayerMissing. Safe to use from several threads; close it, or use
    it as a context.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        layers: Iterable[str] = layering.REQUIRED,
        capabilities: Capabilities = NONE,
        pool: int = 4,
        own_interpreter: bool = False,
        modules: Sequence[str] = MODULES,
    ) -> None:
        if sys.platform != "linux":
            raise Unsupported(
                f"the sandbox runs on Linux only, and this is {sys.platform}; run tools on a Linux machine"
            )
        self.limits = limits or Limits()
        self.required = layering.known(layers)
        self.capabilities = capabilities
        self.pool = 0 if own_interpreter else pool
        self.own_interpreter = own_interpreter
        self.modules = tuple(modules)
        self._program = program(platform.machine())
        self._lock = threading.Lock()
        self._codes: dict[str, bytes] = {}  # by text, compiled in the sandbox, for the sandbox: it is not read here
        self._kept = _Kept(_refill_of(weakref.ref(self)))
        _live.add(self)
        self._finalizer = weakref.finalize(self, _Kept.end, self._kept)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the sandbox; a later call starts them anew."""
        with self._lock:
            self._kept.end()

    def probe(self) -> dict[str, str]:
        """Return every layer, with nothing where it holds on this machine and the reason where it does not."""
        worker, held = self._worker("")
        self._worn(worker, answered=False)
        return held

    def run(
        self,
        source: str,
        arguments: Mapping[str, Value] | None = None,
        *,
        entry: str = "run",
        capabilities: Capabilities | None = None,
    ) -> Outcome:
        """Run a tool's text and call its function `entry` with `arguments`; whatever it does is the outcome.

        Raises only for what is not the tool's doing: BadJob, LayerMissing, SandboxBroken.
        """
        began = time.monotonic_ns()
        allowed = self.capabilities if capabilities is None else capabilities
        code = self._codes.get(source)
        keep = 0 if code or len(source) > _MAX_CODE else min(_MAX_CODE, self.limits.value_bytes)
        job = _job(source if code is None else "", code, keep, dict(arguments or {}), entry, allowed)
        worker, held = self._worker(source)
        broker = Broker(allowed, self.limits, self._kept.threads)
        answered = False
        try:
            layers = layering.demand(self.required, held)
            end = self._converse(worker, job, broker, source if keep else None)
            answered = end.answer is not None
        finally:
            exit_ = self._worn(worker, answered)
        return self._outcome(end, exit_, broker, layers, began)

    def _converse(self, worker: Worker, job: bytes, broker: Broker, keeping: str | None) -> _End:
        """Send the job and serve the tool until it answers; `keeping` is the text whose compiled form has to come first."""
        ends_at = time.monotonic() + self.limits.wall_seconds
        cap = self.limits.value_bytes + 4 * self.limits.printed_chars + _MAX_TOLD
        calls = 0
        try:
            worker.channel.send(job, ends_at)
            self._spend()
            while True:
                said = decode_said(worker.channel.receive(cap, ends_at))
                if keeping is not None and isinstance(said, Compiled):
                    self._keep(keeping, said.code)
                    keeping = None
                    continue
                if isinstance(said, Fail) or (isinstance(said, Done) and keeping is None):
                    return _End(said)
                if keeping is not None or not isinstance(said, Call):
                    raise Garbage("a message out of turn")
                calls += 1
                if calls > self.limits.capability_calls:
                    return _End(None, "capabilities", f"more than {self.limits.capability_calls} uses of capabilities")
                worker.channel.send(broker.perform(said.name, said.args, said.kwargs, ends_at), ends_at)
                broker.settle()
        except HungUp:
            return _End(None)
        except Late:
            return _End(None, "wall", f"it ran longer than {self.limits.wall_seconds:g} s")
        except Unfinished:
            late = time.monotonic() >= ends_at
            return _End(None, "wall" if late else "capabilities", "a capability did not return in time")
        except (Garbage, Uncrossable) as error:
            return _End(None, "protocol", f"what it wrote to its channel is no message: {error}")

    def _outcome(self, end: _End, exit_: Exit, broker: Broker, layers: tuple[str, ...], began: int) -> Outcome:
        value: Value = None
        error: ToolFailure | None = None
        killed_by, answer = end.killed_by, end.answer
        if isinstance(answer, Done):
            try:
                value = cast(Value, decode(bytes(answer.value), self.limits.value_items))
            except (Uncrossable, RecursionError) as fault:
                error = ToolFailure("BadValue", str(fault))
        elif isinstance(answer, Fail):
            error = ToolFailure(scrub(answer.type[:200]), scrub(answer.message[:4000]), answer.line)
        elif killed_by is not None:
            error = ToolFailure("Killed", end.why)
        else:
            killed_by, why = self._died_of(exit_)
            error = ToolFailure("Died", why)
        return Outcome(
            value=value,
            error=error,
            effects=broker.effects(),
            printed=answer.printed[: self.limits.printed_chars] if answer else "",
            printed_cut=answer.cut if answer else False,
            cpu_ns=exit_.cpu_ns,
            wall_ns=time.monotonic_ns() - began,
            rss_bytes=exit_.rss_bytes,
            layers_held=layers,
            killed_by=killed_by,
        )

    def _died_of(self, exit_: Exit) -> tuple[str | None, str]:
        number = os.WTERMSIG(exit_.status) if os.WIFSIGNALED(exit_.status) else 0
        # Nobody here has killed it. The kernel's limit counts ticks, its bill counts time: under load they differ by a part.
        if number == signal.SIGKILL and exit_.cpu_ns >= self.limits.cpu_seconds * 600_000_000:
            return "cpu", f"it used more than {self.limits.cpu_seconds} s of processor time"
        if number and number != signal.SIGKILL:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"SIG{number}"
            return f"signal:{name}", f"it ended by {name}"
        return None, "it ended without an answer"

    def _worker(self, source: str) -> tuple[Worker, dict[str, str]]:
        """Return a sealed worker, and how it is sealed; a lost zygote is started once more."""
        if self.own_interpreter:
            worker = single(self._config(_imports(source, self.modules)))
            return worker, _layers(worker)
        for again in (False, True):
            try:
                with self._lock:
                    worker = self._kept.take(self)
                return worker, _layers(worker)
            except SandboxBroken as broken:
                if again or isinstance(broken, Starved):
                    raise
                with self._lock:
                    self._kept.end()
        raise AssertionError

    def _worn(self, worker: Worker, answered: bool) -> Exit:
        """End a worker, and see to the next; how one ended that gave no answer is waited for."""
        exit_ = worker.dismiss() if answered else worker.end()
        self._spend()
        return exit_

    def _spend(self) -> None:
        """See to the next worker: soon, for its birth takes a core; at once, while the worker works, where few are left."""
        if self.pool:
            if len(self._kept.idle) * 2 > self.pool:
                self._kept.gardener.ask()
            else:
                self._refill()

    def _refill(self) -> None:
        if self.pool:
            with self._lock, contextlib.suppress(SandboxBroken):
                self._kept.fill(self)

    def _keep(self, source: str, code: bytes) -> None:
        if not code:
            return
        with self._lock:
            while len(self._codes) >= _MOST_CODES:
                del self._codes[next(iter(self._codes))]
            self._codes[source] = code

    def _config(self, modules: Iterable[str]) -> dict[str, object]:
        limits = {
            name: getattr(self.limits, name) for name in ("cpu_seconds", "memory_bytes", "value_bytes", "printed_chars")
        }
        return {"modules": list(modules), "limits": limits, "seccomp": self._program}


_live: "weakref.WeakSet[Sandbox]" = weakref.WeakSet()


def _unlock() -> None:
    """Give each sandbox of a forked copy a lock that nobody holds: a thread that is not there any more may have held it."""
    for sandbox in list(_live):
        sandbox._lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


class _Kept:
    """The zygote, the idle workers and the threads of one sandbox; its user holds the sandbox's lock."""

    def __init__(self, refill: Callable[[], None]) -> None:
        self.nursery: Nursery | None = None
        self.idle: deque[Worker] = deque()
        self.threads = WaitingThreads()
        self.gardener = Gardener(refill, _SOON)
        self.owner = 0

    def take(self, sandbox: Sandbox) -> Worker:
        self._settle()
        if self.nursery is None:
            self.nursery = Nursery(sandbox._config((*ALWAYS, *sandbox.modules)))
            with contextlib.suppress(Starved):  # one worker is enough for now
                self.fill(sandbox)
        return self.idle.popleft() if self.idle else self.nursery.worker(waits=False)

    def fill(self, sandbox: Sandbox) -> None:
        while self.nursery is not None and len(self.idle) < sandbox.pool:
            self.idle.append(self.nursery.worker(waits=True))
            self.idle[0].greet()

    def _settle(self) -> None:
        """Where this is a forked copy of the process that started it all, begin anew and leave the other's alone."""
        if self.nursery is not None and self.owner != os.getpid():
            self.nursery.abandon()
            self.nursery = None
            for worker in self.idle:
                worker.channel.sock.close()
            self.idle.clear()
        self.owner = os.getpid()

    def end(self) -> None:
        self.threads.end()
        self.gardener.end()
        self._settle()
        while self.idle:
            self.idle.pop().drop()
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None


def _refill_of(sandbox: "weakref.ref[Sandbox]") -> Callable[[], None]:
    """Return what fills the pool of a sandbox while there is one: it does not keep it from being forgotten."""

    def refill() -> None:
        if (found := sandbox()) is not None:
            found._refill()

    return refill


def _layers(worker: Worker) -> dict[str, str]:
    try:
        held = worker.layers()
        if not worker.alive():
            raise SandboxBroken("a worker of the sandbox ended before it was used; check memory and processes")
        return held
    except BaseException:
        worker.drop()
        raise


def _imports(source: str, modules: Sequence[str]) -> list[str]:
    """Return those of `modules` that the text seems to import; a wrong guess costs time or an ImportError, no more."""
    words = {word for found in _IMPORT.findall(source) for word in _NAME.findall(found)}
    return [name for name in modules if name in words or name.split(".")[0] in words]


def _job(
    source: str, code: bytes | None, keep: int, arguments: dict[str, Value], entry: str, capabilities: Capabilities
) -> bytes:
    for name in arguments:
        if not isinstance(name, str):
            raise BadJob(f"the argument {name!r} has no name; use text")
    stubs = list(capabilities.names)
    job = {"source": source, "code": code, "keep": keep, "entry": entry, "arguments": arguments, "stubs": stubs}
    try:
        return encode(job, _MAX_JOB)
    except Uncrossable as error:
        raise BadJob(f"the tool or its arguments cannot cross into the sandbox: {error}") from None
