"""Who owns the broker's store: files, locks, and which process is alive.

The broker inherits a locked file (`alive.lock`) and keeps it for life, so the kernel tells whether it runs: no stale
pid, no pid reused by another process, and no second broker on one store, also from another container. `state.json`
only says where it is. `start.lock` is held by whoever starts or stops it.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import BrokerFailed


@dataclass(frozen=True)
class BrokerFiles:
    """Name the files of an embedded broker."""

    folder: Path

    @property
    def store(self) -> Path:
        """JetStream's folder."""
        return self.folder / "store"

    @property
    def token(self) -> Path:
        """The secret that clients show."""
        return self.folder / "token"

    @property
    def config(self) -> Path:
        """What nats-server was started with."""
        return self.folder / "server.conf"

    @property
    def state(self) -> Path:
        """Where the broker is: a BrokerState."""
        return self.folder / "state.json"

    @property
    def log(self) -> Path:
        """The broker's own log, bounded in size."""
        return self.folder / "server.log"

    @property
    def output(self) -> Path:
        """What nats-server wrote before its log was open."""
        return self.folder / "server.err"

    @property
    def stopped(self) -> Path:
        """Present while the broker is down because the user wants it so."""
        return self.folder / "stopped"

    @property
    def start_lock(self) -> Path:
        """Locked while somebody starts or stops the broker."""
        return self.folder / "start.lock"

    @property
    def alive_lock(self) -> Path:
        """Locked by the broker while it lives."""
        return self.folder / "alive.lock"


@dataclass(frozen=True)
class BrokerState:
    """Say where a broker was started: host, pid, the kernel's start tick of that pid, port, and unix ns."""

    host: str
    pid: int
    born: int
    port: int
    started_ns: int

    @property
    def url(self) -> str:
        """The address that clients connect to."""
        return f"nats://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Tell whether that very process still runs on this host."""
        return self.host == socket.gethostname() and process_born(self.pid) == self.born


def read_state(files: BrokerFiles) -> BrokerState | None:
    """Return the recorded state, or None where there is none that can be read."""
    try:
        fields = json.loads(files.state.read_bytes())
        state = BrokerState(**fields)
    except (OSError, ValueError, TypeError):
        return None
    numbers = (state.pid, state.born, state.port, state.started_ns)
    return state if all(isinstance(n, int) and n > 0 for n in numbers) else None


def write_state(files: BrokerFiles, state: BrokerState) -> None:
    """Replace the recorded state in one step."""
    write_private(files.state, json.dumps(asdict(state)))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def process_born(pid: int) -> int | None:
    """Return the kernel's start tick of a running process, or None where it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def process_worked(pid: int) -> int:
    """Return how many ticks of a processor a running process has had; 0 where it is gone."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[11]) + int(fields[12])


def _stat(pid: int) -> list[bytes] | None:
    """Return what the kernel says of a process behind its name; None where it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else fields


def age_s(born: int) -> float:
    """Return how many seconds ago a process was started, by its start tick: steps of the wall clock are no part of it."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - born / os.sysconf("SC_CLK_TCK"))


def find_live(files: BrokerFiles) -> BrokerState | None:
    """Return the state of the broker that is alive, or None where none is or its state is not (yet) recorded."""
    if not is_held(files.alive_lock):
        return None
    state = read_state(files)
    return state if state is not None and state.alive() else None


def is_held(lock: Path) -> bool:
    """Tell whether somebody holds a lock exclusively."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BrokerFailed(f"cannot look at {lock}: {error.strerror}; check its owner and rights") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Unlock by name: a fork in another thread may have copied the descriptor, and closing ours would not do.
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def holders(lock: Path) -> list[int]:
    """Return the pids of this user's processes that have a lock file open."""
    found: list[int] = []
    try:
        wanted = lock.stat()
    except OSError:
        return found
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for fd in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):
                    seen = fd.stat()
                    if (seen.st_ino, seen.st_dev) == (wanted.st_ino, wanted.st_dev):
                        found.append(int(entry.name))
                        break
    return found


def is_broker(pid: int, files: BrokerFiles) -> bool:
    """Tell whether a process is the nats-server of these files."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(files.config) in arguments[1:]


def orphans(files: BrokerFiles) -> list[int]:
    """Return the pids of brokers of these files that run although their lock, or their whole folder, was deleted.

    Surely ours: each was started with our configuration, and has the lock that stood here open.
    """
    deleted = f"{os.path.realpath(files.alive_lock)} (deleted)"
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_broker(int(entry.name), files):
            with contextlib.suppress(OSError):
                here = os.readlink(entry / "ns/mnt") == os.readlink("/proc/self/ns/mnt")  # names mean the same there
                if here and any(_leads_to(fd, deleted) for fd in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
    return found


def _leads_to(descriptor: Path, name: str) -> bool:
    try:
        return os.readlink(descriptor) == name
    except OSError:  # closed since it was listed
        return False


@contextlib.contextmanager
def start_lock(files: BrokerFiles, deadline: float) -> Iterator[None]:
    """Hold the right to start or stop the broker. Raises BrokerFailed after `deadline` seconds of waiting."""
    try:
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(files.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BrokerFailed(
            f"cannot write to the broker's folder {files.folder}: {error.strerror}; set MORPHOGEN_HOME to one that can"
        ) from error
    try:
        if not _lock(fd, deadline):
            raise BrokerFailed(
                f"another process has been starting or stopping the broker of {files.folder} for {deadline:.0f} s; "
                f"see {files.log}"
            )
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def claim_store(files: BrokerFiles, deadline: float = 1.0) -> int | None:
    """Return a descriptor that holds the store, to be inherited by a new broker, or None where it is held."""
    opened = os.open(files.alive_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:  # where streams are closed it is one of theirs, and a child's are set anew
        fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(opened)
    # Somebody's glance (is_held) shares the lock for an instant, so one refusal proves nothing.
    if _lock(fd, deadline):
        return fd
    os.close(fd)
    return None


def _lock(fd: int, deadline: float) -> bool:
    end = time.monotonic() + deadline
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        else:
            return True
