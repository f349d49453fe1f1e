"""A file that is read again under another name is not mapped anew; one without a name is let go of."""

import os
import resource
import time
from pathlib import Path

import numpy as np

from morphogen.kernels.kv.transport import SharedMemory
from morphogen.schemas.kv import KvRef


def put(memory: SharedMemory, data: bytes) -> KvRef:
    with memory.reserve(len(data)) as room:
        room.buffer[:] = data
        return room.commit()


def mappings(path: Path) -> list[str]:
    """Return this process's mappings of the files of a folder."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]


def test_a_reader_of_a_recycled_file_keeps_its_mapping_and_sees_the_new_bytes(tmp_path: Path) -> None:
    writer, reader = SharedMemory(tmp_path / "kv"), SharedMemory(tmp_path / "kv")
    for letter in (b"a", b"b", b"c"):
        ref = put(writer, letter * 50_000)
        with reader.open(ref) as mapped:
            assert bytes(mapped.buffer) == letter * 50_000
            read_only = [line for line in mappings(tmp_path / "kv") if " r--s " in line]
            assert len(read_only) == 1
        assert writer.release(ref) == "freed"
    reader.close()
    writer.close()
    assert mappings(tmp_path / "kv") == []


def test_a_file_that_is_still_looked_at_is_neither_written_again_nor_read_by_the_next(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path / "kv")
    ref = put(memory, b"a" * 50_000)
    mapped = memory.open(ref)
    kept = np.frombuffer(mapped.buffer, np.uint8)
    mapped.close()
    memory.release(ref)
    again = put(memory, b"b" * 50_000)
    with memory.open(again) as other:
        assert bytes(other.buffer) == b"b" * 50_000
    assert bytes(kept) == b"a" * 50_000
    memory.release(again)
    memory.close()


def test_a_file_without_a_name_is_let_go_of_within_seconds(tmp_path: Path) -> None:
    writer, reader = SharedMemory(tmp_path / "kv"), SharedMemory(tmp_path / "kv")
    ref = put(writer, b"a" * 50_000)
    with reader.open(ref):
        pass
    writer.release(ref)
    writer.close()  # its spare file goes
    end = time.monotonic() + 20
    while mappings(tmp_path / "kv"):
        assert time.monotonic() < end
        time.sleep(0.1)
    reader.close()


def test_no_file_handle_is_left_open(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path / "kv")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ref = put(memory, b"a" * 5_000)
        with memory.open(ref):
            pass
        memory.release(ref)
    memory.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_states_are_many_more_than_the_files_that_stay_open(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 160, limits[1]))  # a 32nd is a few, and each takes two
    writer, reader = SharedMemory(tmp_path / "kv"), SharedMemory(tmp_path / "kv")
    most = 2 * ((before + 160) // 32)
    try:
        refs = [put(writer, b"%4d" % number * 1000) for number in range(200)]
        assert len(os.listdir("/proc/self/fd")) <= before + most + 8
        for number, ref in enumerate(refs):
            with reader.open(ref) as mapped:
                assert bytes(mapped.buffer[:4]) == b"%4d" % number
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * most + 8
        for ref in refs:
            assert writer.release(ref) == "freed"
        assert len(os.listdir("/proc/self/fd")) <= before + 3 * most + 8
        assert len(writer.segments()) <= most  # spare ones
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        reader.close()
        writer.close()
