"""The process that forks workers and buries them: started once by the host, or once for a single call.

It hears one thing, "fork a worker on these two sockets", and says two things of each worker: its pid, and how it ended and
what it cost. A worker dies when its lease (a socket to the host) is closed or written to; all die when the host does, which is
seen by its pidfd, so a descriptor that some other child of the host has inherited cannot keep them alive; and if this
process is killed, the kernel kills each worker (PDEATHSIG), and with it all of its pid namespace.
"""

import gc
import posix
import select
import sys

from . import kernel, running, sealing

_POLLIN = 1
_SIGKILL = 9


def main(config: dict[str, object], control: int, parent: int, lease: int | None) -> None:
    """Prepare, step into the namespaces, then serve: `lease` is given where there is one worker to fork, on `control`."""
    host = posix.pidfd_open(parent)
    if posix.getppid() != parent:
        posix._exit(0)
    modules = config["modules"]
    assert isinstance(modules, list)
    running.prepare(modules if lease is not None else ["_socket", *modules])
    held = sealing.outer()
    rehearsal = b""
    if lease is None:
        limits = config["limits"]
        assert isinstance(limits, dict)
        rehearsal = running.rehearsal()
        running.rehearse(limits, rehearsal)
    gc.freeze()  # a worker's collector leaves these pages alone, so they stay shared
    nursery = Nursery(config, held, rehearsal, host, control)
    if lease is None:
        nursery.serve()
    else:
        nursery.fork(control, lease)
        nursery.single()


class Nursery:
    """The workers that run, by the descriptors that tell of them."""

    def __init__(
        self, config: dict[str, object], held: sealing.Held, rehearsal: bytes, host: int, control: int
    ) -> None:
        self.config = config
        self.held = held
        self.rehearsal = rehearsal
        self.host = host
        self.control = control
        self.poll = select.poll()
        self.poll.register(host, _POLLIN)
        self.leases: dict[int, int] = {}  # lease -> pid
        self.heeded: set[int] = set()  # leases that are polled: not any more once they have ended
        self.ends: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, lease)

    def serve(self) -> None:
        """Fork on request until the host is gone."""
        import _socket  # prepared before; one worker alone needs none

        control = _socket.socket(fileno=self.control)
        self.poll.register(self.control, _POLLIN)
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.host:
                    self.end()
                elif descriptor == self.control:
                    message, extra, _, _ = control.recvmsg(16, 256)
                    if not message:
                        self.end()
                    for _, _, data in extra:
                        channel, lease = (int.from_bytes(data[at : at + 4], sys.byteorder) for at in (0, 4))
                        self.fork(channel, lease, rehearsed=message == b"w")
                else:
                    self.heard(descriptor)

    def single(self) -> None:
        """Wait for the one worker."""
        while self.ends:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.host:
                    self.end()
                else:
                    self.heard(descriptor)
        posix._exit(0)

    def heard(self, descriptor: int) -> None:
        """Bury a worker that has ended, or kill one whose lease has."""
        if descriptor in self.ends:
            self.bury(descriptor)
        elif descriptor in self.heeded:
            self.poll.unregister(descriptor)
            self.heeded.remove(descriptor)
            posix.kill(self.leases[descriptor], _SIGKILL)

    def fork(self, channel: int, lease: int, *, rehearsed: bool = False) -> None:
        """Fork one worker, in a pid namespace and an IPC namespace of its own where that can be had.

        One that is to wait is `rehearsed`: the memory that its job will write to becomes its own before the job comes.
        """
        held = dict(self.held)
        spaces = sealing.NEWPID | (0 if held["ipc_ns"] else sealing.NEWIPC)
        held["pid_ns"] = ""
        try:
            pid = kernel.fork(spaces)
        except OSError as error:
            held["pid_ns"] = str(error.strerror)
            try:
                pid = kernel.fork(0)
            except OSError:
                posix.close(channel)
                posix.close(lease)
                return
        if pid == 0:
            self.live(channel, held, rehearsed)
        posix.close(channel)
        _tell(lease, pid.to_bytes(8, "little"))
        ended = posix.pidfd_open(pid)
        self.leases[lease] = pid
        self.heeded.add(lease)
        self.ends[ended] = (pid, lease)
        self.poll.register(lease, _POLLIN)
        self.poll.register(ended, _POLLIN)

    def live(self, channel: int, held: sealing.Held, rehearsed: bool) -> None:
        """Be the worker: seal, answer one job, and end."""
        status = 70
        try:
            limits, program = self.config["limits"], self.config["seccomp"]
            assert isinstance(limits, dict)
            assert isinstance(program, bytes)
            held.update(sealing.inner(channel, program, limits))
            if rehearsed:
                running.rehearse(limits, self.rehearsal)
            running.ready(held)
            running.work(limits)
            status = 0
        finally:
            posix._exit(status)

    def bury(self, ended: int) -> None:
        """Reap a worker and tell its host, on the lease: status, nanoseconds of processor, bytes at most resident."""
        pid, lease = self.ends.pop(ended)
        self.poll.unregister(ended)
        posix.close(ended)
        _, status, used = posix.wait4(pid, 0)
        numbers = (status, int((used.ru_utime + used.ru_stime) * 1e9), used.ru_maxrss * 1024)
        _tell(lease, b"".join(number.to_bytes(8, "little") for number in numbers))
        del self.leases[lease]
        if lease in self.heeded:
            self.poll.unregister(lease)
            self.heeded.remove(lease)
        posix.close(lease)

    def end(self) -> None:
        """Kill every worker, and go."""
        for pid in self.leases.values():
            posix.kill(pid, _SIGKILL)
        for pid in self.leases.values():
            posix.waitpid(pid, 0)  # gone when we are: nobody else has to bury them
        posix._exit(0)


def _tell(lease: int, words: bytes) -> None:
    """Write to a lease; where the host has let go of it there is nobody to tell."""
    try:
        posix.write(lease, words)
    except OSError:
        return
