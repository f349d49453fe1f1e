"""Who wrote a spool: kept beside it in `writer.json`, so that any process can publish what a dead one left."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
import zlib
from pathlib import Path

import msgspec

WRITER_FILE = "writer.json"
LOCK_FILE = "lock"


class Writer(msgspec.Struct, kw_only=True):
    """Hold what a lane's frames say of their producer.

    `attempts` are all that this writer took or tried to take, the present one last; its frames may lie under any
    of them. `kind` is "main", or "child" for a forked process, whose subjects carry its writer id as well.
    """

    run: str
    rank: int
    writer: str
    kind: str = "main"
    attempts: list[int]
    parent: str | None = None
    host: str = ""
    pid: int = 0
    created: int = 0

    @classmethod
    def new(cls, run: str, rank: int, attempt: int, *, kind: str = "main", parent: str | None = None) -> "Writer":
        """Describe this process as a new writer."""
        return cls(
            run=run, rank=rank, writer=secrets.token_hex(8), kind=kind, attempts=[attempt], parent=parent,
            host=socket.gethostname(), pid=os.getpid(), created=time.time_ns(),
        )  # fmt: skip

    @property
    def attempt(self) -> int:
        """Return the present attempt."""
        return self.attempts[-1]

    def label(self, attempt: int) -> str:
        """Return the last token of this writer's subjects."""
        return f"{attempt}-{self.rank}" if self.kind == "main" else f"{attempt}-{self.rank}-{self.writer}"

    def save(self, folder: Path) -> None:
        """Write it beside the spool, atomically, and into the lock file as well. Raises OSError."""
        body = msgspec.json.encode(self)
        text = json.dumps({"crc": zlib.crc32(body), "writer": body.decode()}).encode()
        part = folder / f".{WRITER_FILE}.part"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text)
            with contextlib.suppress(OSError):
                os.fdatasync(fd)
        finally:
            os.close(fd)
        part.replace(folder / WRITER_FILE)
        with contextlib.suppress(OSError):  # a second copy, should the first be damaged
            (folder / LOCK_FILE).write_bytes(text)

    @classmethod
    def load(cls, folder: Path) -> "Writer | None":
        """Read it back; None where neither copy is whole."""
        for name in (WRITER_FILE, LOCK_FILE):
            try:
                kept = json.loads((folder / name).read_bytes())
                body = str(kept["writer"]).encode()
                if zlib.crc32(body) == kept["crc"]:
                    return msgspec.json.decode(body, type=cls)
            except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
                continue
        return None


def lock(folder: Path) -> int | None:
    """Take a spool for this process: return the descriptor that holds it, None where another process has it.

    Raises OSError where the file cannot be opened at all.
    """
    path = folder / LOCK_FILE
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:  # else it was drained and deleted meanwhile
            return fd
    except OSError:
        pass
    os.close(fd)
    return None
