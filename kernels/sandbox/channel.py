"""Frames over a socket to a process that may be hostile: a length, a cap, a deadline, and one fault for each."""

import select
import socket
import time

_CHUNK = 1 << 18


class HungUp(Exception):
    """The other side is gone."""


class Late(Exception):
    """The deadline passed."""


class Garbage(Exception):
    """What came is no frame, or one above the cap."""


class Channel:
    """One side of a stream socket, never blocking for longer than it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)

    def pending(self) -> bool:
        """Whether there is something to read, were it only that the other side is gone."""
        return bool(self._readable.poll(0))

    def send(self, body: bytes, ends_at: float) -> None:
        """Write one frame before `ends_at` (of the monotonic clock)."""
        data = memoryview(len(body).to_bytes(4, "little") + body)
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                _wait(self._writable, ends_at)
            except OSError:
                raise HungUp from None

    def receive(self, cap: int, ends_at: float) -> bytes:
        """Read one frame of at most `cap` bytes before `ends_at`."""
        size = int.from_bytes(self._exactly(4, ends_at), "little")
        if size > cap:
            raise Garbage(f"a frame of {size} bytes where at most {cap} may come")
        return self._exactly(size, ends_at)

    def _exactly(self, size: int, ends_at: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            try:
                piece = self.sock.recv(min(size - len(got), _CHUNK))
            except BlockingIOError:
                _wait(self._readable, ends_at)
                continue
            except OSError:
                raise HungUp from None
            if not piece:
                raise HungUp
            got += piece
            if time.monotonic() > ends_at:
                raise Late
        return bytes(got)


def _wait(poll: select.poll, ends_at: float) -> None:
    left = ends_at - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise Late
