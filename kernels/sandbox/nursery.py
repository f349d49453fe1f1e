"""The host's hold on the processes of a sandbox: starts the far side, asks it for workers, and sees each one buried.

Knows sockets and processes; knows nothing of tools. A worker's lease is a socket: shut it, and the worker is killed;
read it, and there stands the worker's pid, then how it ended and what it cost.
"""

import contextlib
import marshal
import os
import select
import socket
import struct
import subprocess
import sys
import time
from functools import cache
from importlib import resources
from types import CodeType

import msgspec

from .channel import Channel, Garbage, HungUp, Late
from .errors import SandboxBroken
from .messages import Ready, decode_said

_FILES = ("codec", "kernel", "sealing", "running", "zygote")  # in the order in which they import each other
_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED: with a pid, the clock of all that the process's threads have computed
_PATIENCE = 20.0  # seconds for an interpreter to start or a killed process to be buried, on a machine however busy
# Our own modules, compiled here from our own files, on a descriptor that only the new interpreter has: it imports nothing
# from disk. No byte of a tool passes through marshal; that comes later, as text, when the process is sealed.
_BOOT = """\
import marshal,posix,sys
f=int(sys.argv[1]);a=marshal.loads(posix.pread(f,posix.fstat(f).st_size,0));posix.close(f)
p=type(sys)("inside");p.__path__=[];sys.modules["inside"]=p
for n,c in a[0]:
 m=type(sys)("inside."+n);m.__package__="inside";sys.modules["inside."+n]=m;setattr(p,n,m);exec(c,m.__dict__)
m.main(a[1],*[int(x) if x else None for x in sys.argv[2:]])
"""


class Starved(SandboxBroken):
    """The host may open no more descriptors; what runs already goes on."""


class Exit(msgspec.Struct, frozen=True):
    """How a worker ended: a wait status, its processor time, and the most memory that it had resident."""

    status: int
    cpu_ns: int
    rss_bytes: int


class Worker:
    """One sealed process, waiting for one job."""

    def __init__(self, channel: socket.socket, lease: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        self.channel = Channel(channel)
        self._lease = Channel(lease)
        self._process = process
        self._pid = 0
        self._sealed: dict[str, str] | None = None

    def greet(self) -> None:
        """Hear that it is sealed, where it has said so already; a fault of it is for `layers` to tell."""
        if self._sealed is None and self.channel.pending():
            with contextlib.suppress(SandboxBroken):
                self.layers()

    def layers(self) -> dict[str, str]:
        """Wait until it is sealed, and return what it says of its layers; SandboxBroken where it never is."""
        if self._sealed is not None:
            return self._sealed
        try:
            said = decode_said(self.channel.receive(1 << 16, time.monotonic() + _PATIENCE))
        except (HungUp, Late, Garbage) as error:
            raise SandboxBroken(
                f"a worker of the sandbox did not start ({type(error).__name__}); check memory, processes and {sys.executable}"
            ) from None
        if not isinstance(said, Ready):
            raise SandboxBroken("a worker of the sandbox spoke before it was sealed; this is a fault of Morphogen")
        with contextlib.suppress(HungUp, Late):
            self._pid = int.from_bytes(self._lease._exactly(8, time.monotonic() + _PATIENCE), "little")
        self._sealed = said.layers
        return said.layers

    def alive(self) -> bool:
        """Whether nothing has been heard of its end."""
        return not self._lease.pending()

    def dismiss(self) -> Exit:
        """Have it killed, and return what it has cost until now, by the kernel's count; it waits, for it has answered.

        Who buries it need not be waited for: the end of its namespaces takes longer than most calls.
        """
        try:
            cpu_ns = time.clock_gettime_ns((~self._pid << 3) | _PROCESS_CLOCK)
            found = Exit(0, cpu_ns, _most_resident(self._pid))
        except (OSError, ValueError):  # gone against all custom, or a host that hides the processes of others
            return self.end()
        self.drop()
        return found

    def end(self) -> Exit:
        """Kill it if it still lives, wait until it is buried, and return what is known of its life."""
        lease = self._lease.sock
        with contextlib.suppress(OSError):
            lease.shutdown(socket.SHUT_WR)
        try:
            record = self._lease._exactly(24, time.monotonic() + _PATIENCE)
            found = Exit(*struct.unpack("<QQQ", record))
        except (HungUp, Late):
            found = Exit(9, 0, 0)
        self.drop()
        return found

    def drop(self) -> None:
        """Let go of the sockets, which ends the worker, and of the process that held it where it had one to itself."""
        with contextlib.suppress(OSError):
            self._lease.sock.shutdown(socket.SHUT_RDWR)  # a forked copy of the host may hold it too
        self._lease.sock.close()
        self.channel.sock.close()
        if self._process is not None:
            _bury(self._process)


class Nursery:
    """The zygote: an interpreter that has imported what tools may use, and forks a sealed worker on request."""

    def __init__(self, config: dict[str, object]) -> None:
        self._control, far = _pair(socket.SOCK_SEQPACKET)
        try:
            self._process = _start(config, [far.fileno()], str(far.fileno()), str(os.getpid()), "")
        except BaseException:
            self._control.close()
            raise
        finally:
            far.close()

    def worker(self, *, waits: bool) -> Worker:
        """Ask for a worker; it may not be there yet. One that `waits` for its job prepares for it meanwhile."""
        near, far, lease, far_lease = _pairs()
        try:
            socket.send_fds(self._control, [b"w" if waits else b"n"], [far.fileno(), far_lease.fileno()])
        except OSError:
            near.close()
            lease.close()
            raise SandboxBroken(
                f"the process that forks the sandbox's workers did not start, or is gone; check memory and {sys.executable}"
            ) from None
        finally:
            far.close()
            far_lease.close()
        return Worker(near, lease, None)

    def close(self) -> None:
        """End the zygote and every worker of it."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        _bury(self._process)

    def abandon(self) -> None:
        """Let go of the descriptors in a forked copy of the host: the zygote belongs to the original."""
        self._control.close()
        self._process.returncode = 0  # not ours to wait for


def _most_resident(pid: int) -> int:
    """Return the most bytes that a process had resident. Raises OSError or ValueError where that is not told."""
    handle = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        told = os.read(handle, 4096)
    finally:
        os.close(handle)
    at = told.index(b"VmHWM:")
    return int(told[at + 6 : told.index(b"kB", at)]) * 1024


def single(config: dict[str, object]) -> Worker:
    """Start an interpreter for one worker."""
    near, far, lease, far_lease = _pairs()
    with far, far_lease:
        handles = [far.fileno(), far_lease.fileno()]
        try:
            process = _start(config, handles, str(handles[0]), str(os.getpid()), str(handles[1]))
        except BaseException:
            near.close()
            lease.close()
            raise
    return Worker(near, lease, process)


def _pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, kind)
    except OSError as error:
        raise Starved(
            f"the sandbox cannot open sockets: {error.strerror}; close files, or raise the limit on them (ulimit -n)"
        ) from None


def _pairs() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    """Return both ends of a channel, then both of a lease."""
    near, far = _pair()
    try:
        return near, far, *_pair()
    except Starved:
        near.close()
        far.close()
        raise


def _start(config: dict[str, object], handles: list[int], *arguments: str) -> subprocess.Popen[bytes]:
    load = -1
    try:
        load = os.memfd_create("sandbox", os.MFD_CLOEXEC)
        os.write(load, marshal.dumps((_codes(), config)))
        python = getattr(sys, "_base_executable", None) or sys.executable
        return subprocess.Popen(
            [python, "-I", "-S", "-c", _BOOT, str(load), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            pass_fds=[load, *handles],
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxBroken(
            f"the sandbox cannot start an interpreter: {error.strerror}; check {sys.executable}"
        ) from None
    finally:
        if load >= 0:
            os.close(load)


@cache
def _codes() -> list[tuple[str, CodeType]]:
    folder = resources.files(__package__) / "inside"
    return [
        (
            name,
            compile(
                (folder / f"{name}.py").read_text("utf-8"), f"<sandbox {name}>", "exec", dont_inherit=True, optimize=2
            ),
        )
        for name in _FILES
    ]


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process by its pidfd: `Popen.wait` with a timeout would sleep and look, sleep and look."""
    try:
        ended = os.pidfd_open(process.pid)
    except OSError:  # gone already, or no descriptor is left to see it go
        process.kill()
    else:
        try:
            waiting = select.poll()
            waiting.register(ended, select.POLLIN)
            if not waiting.poll(_PATIENCE / 4 * 1000):
                process.kill()
        finally:
            os.close(ended)
    process.wait()
