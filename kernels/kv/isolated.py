"""Restore states in a process of their own, so that a crash inside llama.cpp costs that process and not the service.

Checksums and structure are verified in any case. What remains is a state that someone made to harm, or a fault of
llama.cpp itself. The worker loads the same model (its pages are shared) with a context of its own; a state that it
survives can then be taken by a context here, or be used there.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from morphogen.schemas.kv import Fingerprint, KvRef

from .contexts import seat_of
from .errors import KvError, KvMismatch, KvRefused, WorkerCrashed
from .files import open_plain
from .importing import Imported, import_kv, opened

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_SCALARS = (
    "rope_scaling_type", "rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast",
    "yarn_beta_slow", "yarn_orig_ctx", "type_k", "type_v", "flash_attn_type", "swa_full", "kv_unified", "offload_kqv",
)  # fmt: skip


class Call(msgspec.Struct, frozen=True, tag=True):
    """One request to the worker."""

    what: str  # import | decode | greedy | drop
    seq: int = 0
    tokens: list[int] = []
    count: int = 0
    size: int = 0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the worker says: a result, or the error that it met."""

    tokens: list[int] = []
    size: int = 0
    logits: bool = False
    fingerprint: Fingerprint | None = None
    error: str = ""
    kind: str = ""  # refused | mismatch | error
    differences: tuple[tuple[str, str | int | float | bool | None, str | int | float | bool | None], ...] = ()


class IsolatedImporter:
    """A worker process with a context of `path`, made as `RawContext.open` would with these options.

    It starts with the first call, and again after a crash. Calls from several threads go one after the other.
    """

    def __init__(self, path: "str | Path", *, timeout: float = 120.0, **options: Any) -> None:
        self._path, self._timeout, self._options = Path(path), timeout, options
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @classmethod
    def like(cls, llm: Any, *, timeout: float = 120.0, gpu_layers: int = 0) -> Self:
        """Return a worker whose context takes what that of a `Llama` or a `RawContext` takes."""
        seat = seat_of(llm)
        if seat.overrides:
            raise KvError("a model that was loaded with kv_overrides cannot be loaded alike in a worker")
        options = {name: getattr(seat.params, name) for name in _SCALARS}
        options |= {
            "n_ctx": seat.params.n_ctx or seat.room,
            "n_batch": seat.params.n_batch,
            "sequences": seat.sequences,
        }
        options |= {"n_threads": seat.params.n_threads, "gpu_layers": gpu_layers}
        options["loras"] = [(str(path), scale) for path, scale in seat.loras]
        return cls(seat.path, timeout=timeout, **options)

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def import_kv(self, source: Any, seq: int = 0, *, transport: Any = None) -> Imported:
        """Restore a state in the worker, where it stays. Takes what `import_kv` takes, and raises the same.

        Raises WorkerCrashed where the worker died of it, or did not answer in time.
        """
        with _descriptor(source, transport) as (descriptor, size):
            answer = self._ask(Call("import", seq=seq, size=size), descriptor)
        assert answer.fingerprint is not None
        return Imported(tokens=answer.tokens[0], size=answer.size, logits=answer.logits, fingerprint=answer.fingerprint)

    def import_into(self, llm: Any, source: Any, seq: int = 0, *, transport: Any = None, **more: Any) -> Imported:
        """Try a state in the worker, and import it into `llm` only where the worker survived it."""
        self.import_kv(source, 0, transport=transport)
        self.drop(0)
        return import_kv(llm, source, seq, transport=transport, **more)

    def decode(self, seq: int, tokens: "list[int]") -> None:
        """Add tokens to a sequence of the worker's."""
        self._ask(Call("decode", seq=seq, tokens=[int(token) for token in tokens]))

    def greedy(self, seq: int, count: int) -> list[int]:
        """Return the likeliest next tokens of a sequence of the worker's, which holds them from now on."""
        return self._ask(Call("greedy", seq=seq, count=count)).tokens

    def drop(self, seq: int) -> None:
        """Forget a sequence of the worker's."""
        self._ask(Call("drop", seq=seq))

    def close(self) -> None:
        """End the worker; a later call would start another."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: Call, descriptor: int | None = None) -> Answer:
        with self._lock:
            if self.pid is None:
                self._end()
                self._start()
            assert self._socket is not None
            try:
                send(self._socket, call, descriptor)
                found = receive(self._socket, Answer)
            except TimeoutError:
                self._end()
                raise WorkerCrashed(
                    f"the worker did not answer in {self._timeout:g} s and was killed: nothing was changed here"
                ) from None
            except (OSError, EOFError, msgspec.DecodeError):
                code = self._end()
                raise WorkerCrashed(
                    f"the worker died ({_told(code)}) while it was asked to {call.what}: nothing was changed here"
                ) from None
        return _raised(found[0])

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(self._timeout)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "morphogen.kernels.kv.isolated_worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # llama.cpp's last words and a stack are of no use to the service's log
            )
        self._socket = ours
        body = msgspec.msgpack.encode({"path": str(self._path), "options": self._options})
        try:
            ours.sendall(_LENGTH.pack(len(body)) + body)
            found = receive(ours, Answer)[0]
        except (OSError, EOFError) as error:
            code = self._end()
            raise WorkerCrashed(f"the worker for {self._path} died at its start ({_told(code)})") from error
        if found.error:
            self._end()
        _raised(found)

    def _end(self) -> int | None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            return process.wait(0.5)  # its socket is closed: it ends by itself
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def send(link: socket.socket, message: msgspec.Struct, descriptor: int | None = None) -> None:
    """Send one message, with a file descriptor where there is one."""
    body = msgspec.msgpack.encode(message)
    framed = _LENGTH.pack(len(body)) + body
    if descriptor is None:
        link.sendall(framed)
    else:
        sent = socket.send_fds(link, [framed], [descriptor])
        link.sendall(framed[sent:])


def receive(link: socket.socket, kind: "type[T]") -> tuple[T, int | None]:
    """Return the next message and its file descriptor. Raises EOFError where the other end is gone."""
    data, descriptors, *_ = socket.recv_fds(link, _LENGTH.size, 1)
    while len(data) < _LENGTH.size:
        data += _some(link, _LENGTH.size - len(data))
    (size,) = _LENGTH.unpack(data)
    body = b""
    while len(body) < size:
        body += _some(link, size - len(body))
    return msgspec.msgpack.decode(body, type=kind), descriptors[0] if descriptors else None


def _some(link: socket.socket, size: int) -> bytes:
    data = link.recv(size)
    if not data:
        raise EOFError
    return data


def _raised(answer: Answer) -> Answer:
    if answer.kind == "mismatch":
        raise KvMismatch(answer.differences)
    if answer.error:
        raise (KvRefused if answer.kind == "refused" else KvError)(answer.error)
    return answer


@contextlib.contextmanager
def _descriptor(source: Any, transport: Any) -> Any:
    """Give a file descriptor of the state's bytes, and how many: a file's own, else of a copy in memory."""
    on_disk = isinstance(source, str | Path) or (
        isinstance(source, KvRef) and transport is None and source.transport == "disk" and not source.offset
    )
    if on_disk:
        handle, size = open_plain(Path(source.place if isinstance(source, KvRef) else source))
        try:
            yield handle, size
        finally:
            os.close(handle)
        return
    with opened(source, transport) as state:
        handle = os.memfd_create("kv-state")
        try:
            rest = state.buffer
            while rest.nbytes:
                rest = rest[os.write(handle, rest) :]
            state.held()
            yield handle, state.size
        finally:
            os.close(handle)


def _told(code: int | None) -> str:
    if code is None:
        return "it was gone"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
