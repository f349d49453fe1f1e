"""What an escape would touch: a secret, files, listeners, signals, processes. It says what was harmed."""

import contextlib
import ctypes
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import FrameType

CORPUS = Path(__file__).parent / "corpus"
ATTACKS = {path.stem: path.read_text() for path in sorted(CORPUS.glob("*.tool"))}
ALONE = sorted(name for name, text in ATTACKS.items() if "There it does harm".lower() in text.lower())

# With the static layer off and all of this imported, only the kernel stands between a tool and the machine.
HOSTILE_MODULES = (
    "array", "ctypes", "ctypes.util", "decimal", "gc", "importlib.machinery", "importlib.util", "inspect", "itertools",
    "json", "linecache", "mmap", "multiprocessing", "multiprocessing.context", "multiprocessing.popen_fork",
    "multiprocessing.process", "os", "pickle", "platform", "re", "resource", "signal", "socket", "sqlite3", "struct",
    "subprocess", "threading", "time", "traceback", "zlib",
)  # fmt: skip


class Canary:
    """Files, sockets and processes of the host that nothing in a sandbox may reach."""

    def __init__(self, folder: Path) -> None:
        self.word = f"SECRET-{secrets.token_hex(8)}"
        self.variable = f"ENVIRONMENT-{secrets.token_hex(8)}"
        self.memory = ctypes.create_string_buffer(f"MEMORY-{self.word}".encode())
        self.outside = folder / "outside"
        self.outside.mkdir()
        folder.chmod(0o755)
        self.secret = self.outside / "secret"
        self.secret.write_text(self.word)
        self.target = self.outside / "target"
        self.marker = self.outside / "marker"
        self.shm = f"canary-{secrets.token_hex(8)}"
        self.stack = contextlib.ExitStack()
        self.signals: list[int] = []
        self.listeners = [
            self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, str(self.outside / "socket")),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.shm}"),
        ]
        self.bystander = subprocess.Popen(["sleep", "1000"])
        self.before = signal.signal(signal.SIGUSR1, self._signalled)
        os.environ["CANARY"] = self.variable
        self.reset()

    def _signalled(self, number: int, _: FrameType | None) -> None:
        self.signals.append(number)

    def _listen(self, family: int, kind: int, address: object) -> socket.socket:
        sock = self.stack.enter_context(socket.socket(family, kind))
        sock.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            sock.listen()
        return sock

    def reset(self) -> None:
        """Put everything back, so that the next attack is judged by itself."""
        for path in (self.marker, Path("/dev/shm") / self.shm):
            path.unlink(missing_ok=True)
        self.target.unlink(missing_ok=True)
        self.target.write_text("as it was")
        self.target.chmod(0o644)
        self.signals.clear()
        self._visitors()

    def arguments(self) -> dict[str, object]:
        """What an attack is told, to spare it the search."""
        return {
            "secret": str(self.secret), "target": str(self.target), "folder": str(self.outside), "marker": str(self.marker),
            "tcp": self.listeners[0].getsockname()[1], "udp": self.listeners[1].getsockname()[1],
            "unix": str(self.outside / "socket"), "abstract": self.shm, "shm": self.shm, "host": os.getpid(),
            "bystander": self.bystander.pid, "address": ctypes.addressof(self.memory),
        }  # fmt: skip

    def _visitors(self) -> int:
        ready, _, _ = select.select(self.listeners, [], [], 0)
        for sock in ready:
            if sock.type == socket.SOCK_STREAM:
                sock.accept()[0].close()
            else:
                sock.recv(100)
        return len(ready)

    def harm(self, told: str, allowed_links: int = 1) -> list[str]:
        """Return what was harmed, given all that the attack could tell."""
        found = []
        if self.word in told:
            found.append("the secret was told")
        if self.variable in told:
            found.append("the environment was told")
        if self.marker.is_symlink() or self.marker.exists():
            found.append("a file was made outside")
        if (Path("/dev/shm") / self.shm).exists():
            found.append("shared memory was made")
        if not self.target.exists():
            found.append("a file outside is gone")
        elif self.target.read_text() != "as it was" or self.target.stat().st_mode & 0o777 != 0o644:
            found.append("a file outside was changed")
        elif self.target.stat().st_mtime < time.time() - 86400:
            found.append("the times of a file outside were changed")
        if self.secret.read_text() != self.word or self.secret.stat().st_nlink != allowed_links:
            found.append("the secret was changed")
        if self._visitors():
            found.append("a listener was reached")
        if self.signals:
            found.append("the host was signalled")
        if self.bystander.poll() is not None:
            found.append("another process was ended")
        return found

    def close(self) -> None:
        """Take it all down."""
        self.reset()
        signal.signal(signal.SIGUSR1, self.before)
        os.environ.pop("CANARY", None)
        self.bystander.kill()
        self.bystander.wait()
        self.stack.close()


def descendants(of: int) -> set[int]:
    """Return every process below one, zombies included."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    fresh = {of}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def strangers() -> set[int]:
    """Return the processes that belong to nobody: a worker that outlived its zygote would be one."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{entry}/status").read_text()
                if re.search(r"^PPid:\s+1$", status, re.MULTILINE) and re.search(
                    r"^Seccomp:\s+2$", status, re.MULTILINE
                ):
                    found.add(int(entry))
    return found
