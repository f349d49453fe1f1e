"""What every transport promises, asked of each of them; and what those with files promise besides."""

import ctypes
import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphogen.kernels.kv.leases import LeaseEnded
from morphogen.kernels.kv.transport import (
    BadRef,
    Disk,
    Gone,
    Leased,
    Meta,
    NoRoom,
    SameProcess,
    SharedMemory,
    Transport,
    TransportError,
)
from morphogen.schemas.kv import TRANSPORTS, KvRef

META = Meta()
KINDS = ("same_process", "shared_memory", "disk")


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest, shm: Path, tmp_path: Path) -> Iterator[Leased]:
    made: Leased
    if request.param == "same_process":
        made = SameProcess()
    else:
        made = SharedMemory(shm) if request.param == "shared_memory" else Disk(tmp_path / "kv")
    yield made
    made.close()


@pytest.fixture
def memory(shm: Path) -> Iterator[SharedMemory]:
    made = SharedMemory(shm)
    yield made
    made.close()


def put(transport: Transport, data: bytes, meta: Meta = META) -> KvRef:
    with transport.reserve(len(data)) as room:
        room.buffer[:] = data
        return room.commit(meta)


def test_every_transport_speaks_the_interface(transport: Leased) -> None:
    assert isinstance(transport, Transport) and isinstance(transport, Leased)
    assert transport.name in TRANSPORTS


def test_bytes_that_went_in_come_out(transport: Leased) -> None:
    data = os.urandom(100_001)
    ref = put(transport, data, Meta(checksum="xxh3-128:00", details={"tokens": 7}))
    assert (ref.transport, ref.size, ref.checksum, ref.details) == (
        transport.name,
        100_001,
        "xxh3-128:00",
        {"tokens": 7},
    )
    with transport.open(ref) as mapped:
        assert mapped.ref == ref
        assert bytes(mapped.buffer) == data
        assert mapped.buffer.readonly
        mapped.check()
    assert transport.release(ref) == "freed"


def test_a_ref_is_plain_data(transport: Leased) -> None:
    ref = put(transport, b"state")
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(ref), type=KvRef)
    with transport.open(there) as mapped:
        assert bytes(mapped.buffer) == b"state"


def test_only_a_part_may_be_used_and_only_a_part_opened(transport: Leased) -> None:
    with transport.reserve(1000) as room:
        room.buffer[:10] = b"0123456789"
        ref = room.commit(Meta(size=10))
    assert ref.size == 10
    with transport.open(msgspec.structs.replace(ref, offset=3, size=4)) as mapped:
        assert bytes(mapped.buffer) == b"3456"


@pytest.mark.parametrize("size", [0, -1])
def test_nothing_cannot_be_reserved(transport: Leased, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        transport.reserve(size)


@pytest.mark.parametrize("size", [2**46, 2**50, 2**63, 2**70])
def test_more_than_there_can_be_is_refused_in_one_line(transport: Leased, size: int) -> None:
    with pytest.raises(NoRoom, match="no room for") as refused:
        transport.reserve(size)
    assert "\n" not in str(refused.value)


def test_what_is_not_committed_leaves_nothing(transport: Leased) -> None:
    with pytest.raises(RuntimeError), transport.reserve(10) as room:
        room.buffer[:] = b"x" * 10
        raise RuntimeError
    with transport.reserve(10):
        pass
    if isinstance(transport, SharedMemory | Disk):
        assert transport.segments() == ()


def test_a_reservation_is_committed_once(transport: Leased) -> None:
    room = transport.reserve(10)
    room.commit()
    with pytest.raises(ValueError, match="before"):
        room.commit()
    room.abort()  # harmless now


@pytest.mark.parametrize("used", [0, 11, -1])
def test_more_than_was_reserved_cannot_have_been_written(transport: Leased, used: int) -> None:
    with transport.reserve(10) as room, pytest.raises(ValueError, match="cannot have been written"):
        room.commit(Meta(size=used))


def test_a_second_release_is_harmless_and_told(transport: Leased) -> None:
    ref, kept = put(transport, b"gone"), put(transport, b"kept")
    assert [transport.release(ref), transport.release(ref)] == ["freed", "already"]
    with pytest.raises(LeaseEnded) as refused:
        transport.open(ref)
    assert "\n" not in str(refused.value)
    with transport.open(kept) as mapped:
        assert bytes(mapped.buffer) == b"kept"


def test_a_reader_keeps_the_bytes_when_the_writer_lets_go(transport: Leased) -> None:
    ref = put(transport, b"state")
    mapped = transport.open(ref)
    assert transport.release(ref) == "held"
    with pytest.raises(LeaseEnded):
        transport.open(ref)  # but nobody else gets them any more
    assert bytes(mapped.buffer) == b"state"
    mapped.close()
    mapped.close()
    with pytest.raises(LeaseEnded):
        mapped.check()


def test_an_offer_is_a_lease_of_its_own(transport: Leased) -> None:
    ref = put(transport, b"state")
    offer = transport.offer(ref, ttl=60.0)
    assert offer.lease != ref.lease and offer.place == ref.place
    assert transport.release(ref) == "held"
    with transport.open(offer) as mapped:
        assert bytes(mapped.buffer) == b"state"
    assert transport.renew(offer, ttl=90.0).place == ref.place
    assert transport.release(offer) == "freed"
    with pytest.raises(LeaseEnded):
        transport.renew(offer)


@pytest.mark.parametrize("ttl", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_time_to_live_that_is_none_is_refused(memory: SharedMemory, ttl: float) -> None:
    ref = put(memory, b"state")
    for act in (
        lambda: memory.offer(ref, ttl=ttl),
        lambda: memory.renew(ref, ttl=ttl),
        lambda: SharedMemory(memory.folder.path, ttl=ttl),
    ):
        with pytest.raises(ValueError, match="time to live"):
            act()
    assert memory.release(ref) == "freed"


def test_a_ref_that_lies_about_its_size_is_refused(transport: Leased) -> None:
    """Reading beyond the end of a mapped file ends the process: it must not come to that."""
    ref = put(transport, b"state")
    for size, offset in ((10**9, 0), (1, 10**9), (5, -1), (0, 0), (-1, 0), (2**62, 2**62)):
        with pytest.raises(BadRef, match="holds"):
            transport.open(msgspec.structs.replace(ref, size=size, offset=offset))
    assert transport.release(ref) == "freed"


@pytest.mark.parametrize("place", ["", "..", "/etc/passwd", "a" * 32, "../../x/bytes", "\0", "/" + "a" * 32 + "/bytes"])
def test_a_ref_that_was_never_made_is_refused(transport: Leased, place: str) -> None:
    ref = put(transport, b"state")
    for lease in (ref.lease, "0" * 16 + ".offer", "../x", None):
        with pytest.raises((BadRef, LeaseEnded)) as refused:
            transport.open(KvRef(transport=transport.name, place=place, size=5, lease=lease))
        assert "\n" not in str(refused.value)
    for other in set(KINDS) - {transport.name}:
        with pytest.raises(BadRef):
            transport.open(msgspec.structs.replace(ref, transport=other))
        with pytest.raises(BadRef):
            transport.release(msgspec.structs.replace(ref, transport=other))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.text(), lease=st.one_of(st.none(), st.text()), size=st.integers(), offset=st.integers())
def test_no_ref_from_outside_opens_what_it_should_not(
    transport: Leased, place: str, lease: str | None, size: int, offset: int
) -> None:
    with pytest.raises((TransportError, LeaseEnded)):
        transport.open(KvRef(transport=transport.name, place=place, lease=lease, size=size, offset=offset))


def test_arrays_made_of_the_bytes_outlive_the_mapping(transport: Leased) -> None:
    ref = put(transport, bytes(range(256)) * 100)
    with transport.open(ref) as mapped:
        array = np.frombuffer(mapped.buffer, dtype=np.uint8)
    transport.release(ref)
    for _ in range(3):  # what is written next must not show through
        put(transport, b"\xff" * 25_600)
    assert array[:256].tolist() == list(range(256))


def test_many_threads_at_once_lose_nothing(transport: Leased) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                data = bytes([number, turn]) * 5000
                ref = put(transport, data)
                with transport.open(ref) as mapped:
                    assert bytes(mapped.buffer) == data
                assert transport.release(ref) == "freed"
        except BaseException as error:  # noqa: BLE001  (told by the test)
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_another_process_reads_what_was_written_here(shm: Path, tmp_path: Path, other: Callable[[str], object]) -> None:
    for kind, folder in ((SharedMemory, shm), (Disk, tmp_path / "kv")):
        transport = kind(folder)
        ref = put(transport, b"state of one process")
        reader = other(
            "import msgspec\nfrom pathlib import Path\n"
            "from morphogen.schemas.kv import KvRef\n"
            f"from morphogen.kernels.kv.transport import {kind.__name__} as Kind\n"
            f"transport = Kind(Path({str(folder)!r}))\n"
            f"ref = msgspec.json.decode({msgspec.json.encode(ref)!r}, type=KvRef)\n"
        )
        assert reader("bytes(transport.open(ref).buffer)") == repr(b"state of one process")  # type: ignore[operator]
        assert reader("transport.release(ref)") in ("'freed'", "'held'")  # type: ignore[operator]
        with pytest.raises(LeaseEnded):
            transport.open(ref)
        assert transport.release(ref) == "already"
        transport.close()


def test_what_a_reader_forgot_is_given_back_when_it_is_collected(memory: SharedMemory) -> None:
    ref = put(memory, b"state")
    mapped = memory.open(ref)
    assert memory.release(ref) == "held"
    del mapped
    gc.collect()
    assert memory.reap().kept == 0
    room = memory.reserve(10)
    del room
    gc.collect()
    assert memory.segments() == ()


def test_a_transport_that_was_forgotten_keeps_what_was_committed_and_nothing_else(shm: Path) -> None:
    memory = SharedMemory(shm, ttl=0.6)
    ref = put(memory, b"state")
    memory.release(put(memory, b"spare"))
    files = len(os.listdir("/proc/self/fd"))
    del memory
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < files
    time.sleep(1.0)
    later = SharedMemory(shm)
    assert later.reap().kept == 1
    with later.open(ref) as mapped:  # this process lives, and so does what it wrote
        assert bytes(mapped.buffer) == b"state"
    assert later.release(ref) == "freed"
    later.close()


def test_a_process_that_ends_well_leaves_no_reader_behind(shm: Path, memory: SharedMemory) -> None:
    ref = put(memory, b"state")
    code = (
        "import sys, msgspec\nfrom pathlib import Path\nfrom morphogen.schemas.kv import KvRef\n"
        "from morphogen.kernels.kv.transport import SharedMemory\n"
        f"mapped = SharedMemory(Path({str(shm)!r})).open(msgspec.json.decode(sys.argv[1], type=KvRef))\n"
    )
    subprocess.run([sys.executable, "-c", code, msgspec.json.encode(ref).decode()], check=True)
    assert [len(segment.leases) for segment in memory.segments()] == [1]


def test_a_full_memory_is_refused_before_anything_is_written(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write into a page that cannot be had would end the process with SIGBUS."""

    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoom, match="are free") as refused:
        memory.reserve(1000)
    assert "\n" not in str(refused.value)
    assert memory.segments() == ()


def test_a_full_memory_is_reaped_before_it_is_refused(memory: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, b"first")  # after which it no longer looks for what others have left
    stale, handle = memory.folder.create(0.0)
    os.write(handle, b"x" * 100)
    os.close(handle)
    real, tries = os.posix_fallocate, []

    def once(handle: int, offset: int, size: int) -> None:
        tries.append(size)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", once)
    ref = put(memory, b"state")
    assert tries == [5, 5]
    assert ref.place in {segment.ident for segment in memory.segments()}
    assert not memory.folder.holds(stale)


def test_what_the_dead_have_left_goes_when_memory_is_first_taken(memory: SharedMemory) -> None:
    stale, handle = memory.folder.create(0.0)
    os.close(handle)

    ref = put(memory, b"state")

    assert [segment.ident for segment in memory.segments()] == [ref.place]
    assert not memory.folder.holds(stale)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_file_system_that_is_really_full_costs_no_process(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("this container may not mount")
    try:
        transport = SharedMemory(small / "kv")
        ref = put(transport, b"x" * 700_000)
        with pytest.raises(NoRoom):
            transport.reserve(700_000)
        assert transport.renew(ref) == ref  # leases need no room
        mapped = transport.open(ref)
        mapped.close()
        assert transport.release(ref) == "freed"  # and is spare now
        again = put(transport, b"y" * 900_000)  # which makes way
        assert transport.release(again) == "freed"
        transport.close()
        assert transport.segments() == ()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_freed_files_are_written_again_without_new_pages(memory: SharedMemory) -> None:
    first = put(memory, b"a" * 100_000)
    (before,) = memory.segments()
    assert memory.release(first) == "freed"
    second = put(memory, b"b" * 100_000)
    (after,) = memory.segments()
    assert (shm_inode(memory, second), after.size) == (shm_inode(memory, second), before.size)
    assert second.place != first.place
    with memory.open(second) as mapped:
        assert bytes(mapped.buffer) == b"b" * 100_000
    with pytest.raises(LeaseEnded):
        memory.open(first)


def shm_inode(memory: SharedMemory, ref: KvRef) -> int:
    return memory.folder.bytes_of(ref.place).stat().st_ino


def test_spare_files_stay_within_their_budget(shm: Path) -> None:
    memory = SharedMemory(shm, spare=250_000)
    refs = [put(memory, b"x" * 100_000) for _ in range(4)]
    for ref in refs:
        assert memory.release(ref) == "freed"
    assert sum(segment.size for segment in memory.segments()) == 200_000
    memory.prepare(50_000)
    assert len(memory.segments()) == 3
    memory.close()
    assert memory.segments() == ()


def test_a_spare_file_that_was_reaped_is_not_written(memory: SharedMemory) -> None:
    memory.release(put(memory, b"x" * 1000))
    memory.reap(time.time_ns() + 10**12)
    assert memory.segments() == ()
    ref = put(memory, b"y" * 1000)
    with memory.open(ref) as mapped:
        assert bytes(mapped.buffer) == b"y" * 1000


def test_bytes_that_another_process_freed_are_let_go_here(shm: Path) -> None:
    memory = SharedMemory(shm, ttl=0.3)
    ref = put(memory, b"x" * 1000)
    memory.folder.release(memory.folder.lease_of(ref.place, ref.lease or ""))  # type: ignore[arg-type]
    deadline = time.monotonic() + 5
    while memory._written and time.monotonic() < deadline:
        time.sleep(0.02)
    assert memory._written == {}
    memory.close()


def test_a_forked_child_ends_nothing_of_its_parents(memory: SharedMemory) -> None:
    ref = put(memory, b"state")
    mapped = memory.open(ref)
    spare = put(memory, b"other")
    memory.release(spare)
    child = os.fork()
    if child == 0:
        try:
            mapped.close()
            own = put(memory, b"child")
            memory.release(own)
            memory.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    mapped.check()
    assert bytes(mapped.buffer) == b"state"
    mapped.close()
    assert sorted(segment.state for segment in memory.segments()) == ["ready", "writing"]


def test_a_state_on_disk_outlives_its_writer_and_its_boot(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    code = (
        "import sys, msgspec\nfrom morphogen.kernels.kv.transport import Disk\n"
        f"disk = Disk({str(folder)!r})\n"
        "room = disk.reserve(5); room.buffer[:] = b'state'; ref = room.commit()\n"
        "lost = disk.reserve(50)\n"
        "print(msgspec.json.encode(ref).decode(), flush=True)\nimport os; os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    disk = Disk(folder)
    found = disk.reap()
    assert (len(found.removed), found.kept) == (1, 1)  # what was half written goes
    ref = msgspec.json.decode(done.stdout, type=KvRef)
    assert Path(ref.place).read_bytes() == b"state"
    with disk.open(ref) as mapped:
        assert bytes(mapped.buffer) == b"state"
    disk.reap(time.time_ns() + 10**18)
    assert disk.release(ref) == "freed"
    disk.close()


def test_bytes_that_were_removed_by_hand_are_gone_in_one_line(memory: SharedMemory) -> None:
    ref = put(memory, b"state")
    memory.folder.bytes_of(ref.place).unlink()
    with pytest.raises((Gone, LeaseEnded)) as refused:
        memory.open(ref)
    assert "\n" not in str(refused.value)
    shutil.rmtree(memory.folder.path)
    with pytest.raises(LeaseEnded):
        memory.open(ref)


def test_a_link_in_place_of_the_bytes_is_not_followed(memory: SharedMemory, tmp_path: Path) -> None:
    ref = put(memory, b"state")
    secret = tmp_path / "secret"
    secret.write_bytes(b"other")
    path = memory.folder.bytes_of(ref.place)
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(TransportError, match="no file that can be read"):
        memory.open(ref)


def test_an_engine_writes_straight_into_the_room(memory: SharedMemory) -> None:
    """As llama.cpp does, through an address: no buffer in between."""
    with memory.reserve(1 << 20) as room:
        target = (ctypes.c_char * room.size).from_buffer(room.buffer)
        ctypes.memset(ctypes.addressof(target), 7, room.size)
        del target
        ref = room.commit()
    with memory.open(ref) as mapped:
        assert bytes(mapped.buffer[-3:]) == b"\7\7\7"


def test_a_sequence_of_one_context_is_copied_without_a_byte() -> None:
    class Context:
        def __init__(self) -> None:
            self.copied: list[tuple[int, int]] = []

        def copy(self, source: int, target: int) -> None:
            self.copied.append((source, target))

    transport, context = SameProcess(), Context()
    ref = transport.offer_sequence(context, 3, tokens=100)
    assert ref.size == 0 and ref.details == {"tokens": 100}
    transport.copy_sequence(ref, context, 5)
    assert context.copied == [(3, 5)]
    with pytest.raises(BadRef, match="another context"):
        transport.copy_sequence(ref, Context(), 5)
    with pytest.raises(BadRef, match="not made by"):
        SameProcess().copy_sequence(ref, context, 5)
    assert [transport.release(ref), transport.release(ref)] == ["freed", "already"]
    with pytest.raises(LeaseEnded):
        transport.copy_sequence(ref, context, 5)
