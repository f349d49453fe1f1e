"""A hundred rounds of SIGKILL: whoever dies, and whenever, no segment is left, and no living reader loses its bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.kernels.kv.leases import Lease, LeaseFolder

ROUNDS = 100
SCRIPT = Path(__file__).with_name("victims.py")


class Zygote:
    """The process that forks victims."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def __call__(self, *words: object) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    made = Zygote(tmp_path / "errors")
    yield made
    made.process.communicate()
    made.errors.close()


def wait_for_traffic(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + 10
    while not any(path.is_dir() for path in folder.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)


def owned(folder: LeaseFolder) -> list[Lease]:
    """The leases that belong to a process."""
    return [lease for segment in folder.segments() for lease, _ in segment.leases if lease.holder != "offer"]


def test_a_hundred_rounds_of_sigkill_leave_no_segment(shm: Path, tmp_path: Path, zygote: Zygote) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    folder, chance = LeaseFolder(shm), random.Random(5)
    seen = read = 0
    for number in range(ROUNDS):
        victims = [zygote("produce", shm, inbox, number), zygote("consume", shm, inbox, number), zygote("reap", shm)]
        wait_for_traffic(shm, chance.uniform(0.0, 0.05))
        chance.shuffle(victims)
        for pid in victims[: chance.choice([1, 2, 3])]:  # some die first, the others go on without them
            os.kill(pid, signal.SIGKILL)
            time.sleep(chance.uniform(0.0, 0.004))
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        before = folder.segments()
        seen += len(before)
        read += sum(len({lease.holder for lease, _ in segment.leases} - {"offer"}) > 1 for segment in before)
        if chance.random() < 0.5:  # else they are zombies, and must not be taken for living
            statuses = [zygote("wait", pid) for pid in victims]
        else:
            deadline = time.monotonic() + 10
            while owned(folder) and time.monotonic() < deadline:
                time.sleep(0.001)  # until the kernel has done with them
                folder.reap()
            statuses = [zygote("wait", pid) for pid in victims]
        assert statuses == [-signal.SIGKILL] * 3, (tmp_path / "errors").read_text()
        folder.reap()
        assert owned(folder) == []
        # What was offered to nobody in particular has time to live yet: it is the only thing that has.
        folder.reap(time.time_ns() + 31_000_000_000)
        assert [path.name for path in shm.iterdir()] == ["lock"]
        for path in inbox.iterdir():
            path.unlink()
    assert seen > ROUNDS  # they were killed in the middle of something
    assert read > 0  # and some while one read what the other had written


def test_a_writer_killed_at_any_step_leaves_what_a_reaper_removes(shm: Path, zygote: Zygote, tmp_path: Path) -> None:
    """Killed in the first moments of its life, over and over, at steps of 0.1 ms: between folder, lease and bytes too."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    folder = LeaseFolder(shm)
    for number in range(60):
        pid = zygote("produce", shm, inbox, number)
        time.sleep(number * 0.0001)
        os.kill(pid, signal.SIGKILL)
        assert zygote("wait", pid) == -signal.SIGKILL, (tmp_path / "errors").read_text()
        folder.reap(time.time_ns() + 31_000_000_000)
        assert [path.name for path in shm.iterdir()] == ["lock"]


def test_a_reader_survives_the_death_of_the_writer(shm: Path, other: type) -> None:
    """What is mapped stays mapped, and leased, though its owner is dead and a reaper has come by."""
    writer = other(
        "import msgspec\nfrom pathlib import Path\nfrom morphogen.kernels.kv.transport import SharedMemory\n"
        f"memory = SharedMemory(Path({str(shm)!r}))\n"
        "room = memory.reserve(1 << 20)\n"
        "room.buffer[:] = b'k' * (1 << 20)\n"
        "ref = room.commit()\n"
    )
    import msgspec

    from morphogen.kernels.kv.transport import SharedMemory
    from morphogen.schemas.kv import KvRef

    memory = SharedMemory(shm)
    ref = msgspec.json.decode(eval(writer("msgspec.json.encode(ref)")), type=KvRef)
    mapped = memory.open(ref)
    writer.kill()
    writer.process.wait()
    found = memory.reap()
    assert [over.why for over in found.ended] == ["owner_died"] and found.kept == 1
    mapped.check()
    assert bytes(mapped.buffer) == b"k" * (1 << 20)
    mapped.close()
    assert memory.segments() == ()
    memory.close()
