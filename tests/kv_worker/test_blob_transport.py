"""KV states as blobs: the same bytes come out, a cut-off way is taken up where it ended, a wrong byte is refused."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.bus import Bus, blobs
from morphogen.bus.errors import BlobDamaged, BusError
from morphogen.bus.streams import BLOBS
from morphogen.consumers.kv import BlobTransport
from morphogen.consumers.kv.blob_transport import sweep
from morphogen.kernels.kv.transport import BadRef, Gone, Meta, Transport
from morphogen.schemas.kv import KvRef

DATA = np.random.default_rng(1).bytes(3 * blobs.CHUNK + 77)


def transport(bus: Bus, folder: str | Path, progress: Any = None) -> BlobTransport:
    return BlobTransport(bus.conn, bus.run, folder, progress=progress)


def stored(made: BlobTransport, data: bytes = DATA) -> KvRef:
    with made.reserve(len(data)) as room:
        room.buffer[:] = data
        return room.commit(Meta(checksum="k:1", details={"tokens": 3}))


def test_what_is_written_is_read_and_released_once(bus: Bus, tmp_path: Path) -> None:
    made = transport(bus, tmp_path / "a")
    assert isinstance(made, Transport)

    ref = stored(made)
    with transport(bus, str(tmp_path / "b")).open(ref) as mapped:
        assert bytes(mapped.buffer) == DATA
        assert mapped.buffer.readonly
        mapped.check()

    assert (ref.transport, ref.size, ref.checksum, ref.details) == ("blobs", len(DATA), "k:1", {"tokens": 3})
    assert stored(made).place == ref.place  # the same bytes are the same blob
    assert (made.release(ref), made.release(ref)) == ("freed", "already")
    with pytest.raises(Gone, match="no blob"):
        made.open(ref)
    assert list((tmp_path / "a").iterdir()) == list((tmp_path / "b").iterdir()) == []


def test_a_part_of_a_blob_is_opened_by_its_offset_and_more_than_it_has_is_refused(bus: Bus, tmp_path: Path) -> None:
    made = transport(bus, tmp_path)
    ref = stored(made)

    with made.open(KvRef(transport="blobs", place=ref.place, size=10, offset=5)) as mapped:
        assert bytes(mapped.buffer) == DATA[5:15]
    for size, offset in ((len(DATA), 1), (0, 0), (1, -1)):
        with pytest.raises(BadRef):
            made.open(KvRef(transport="blobs", place=ref.place, size=size, offset=offset))
    with pytest.raises(BadRef, match="cannot be opened as a blob"):
        made.open(KvRef(transport="disk", place=ref.place, size=1))
    with pytest.raises(Gone, match="not the sha256"):
        made.open(KvRef(transport="blobs", place="../../etc/passwd", size=1))
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_was_cut_off_fetches_only_what_is_missing(bus: Bus, tmp_path: Path) -> None:
    ref = stored(transport(bus, tmp_path / "a"))
    folder = tmp_path / "b"
    taking = transport(bus, folder)
    # What a process leaves that is killed after two chunks, one of them damaged on the way to the disk.
    damaged = bytearray(DATA[: 2 * blobs.CHUNK])
    damaged[blobs.CHUNK + 3] ^= 1
    (folder / f"{ref.place}.part").write_bytes(damaged)
    told: list[tuple[int, int]] = []

    with transport(bus, folder, lambda done, total: told.append((done, total))).open(ref) as mapped:
        assert bytes(mapped.buffer) == DATA

    assert len(told) == 3  # of four chunks
    assert told[-1] == (len(DATA), len(DATA))
    assert list(folder.iterdir()) == []
    assert taking.release(ref) == "freed"


def test_a_chunk_that_is_gone_is_told_and_what_was_fetched_is_kept(bus: Bus, tmp_path: Path) -> None:
    ref = stored(transport(bus, tmp_path / "a"))
    _, names = bus.run(blobs.chunk_names(bus.conn, ref.place))

    bus.run(bus.conn.js(f"STREAM.PURGE.{BLOBS}", {"filter": f"morphogen.blob.{ref.place}.{names[2]}"}))
    with pytest.raises(BlobDamaged, match="lacks chunk"):
        transport(bus, tmp_path / "b").open(ref)

    assert [path.suffix for path in (tmp_path / "b").iterdir()] == [".part"]


def test_two_who_fetch_the_same_blob_into_one_folder_both_get_it(bus: Bus, tmp_path: Path) -> None:
    made = transport(bus, tmp_path)
    ref = stored(made)
    got: list[bytes] = []

    def take() -> None:
        with made.open(ref) as mapped:
            got.append(bytes(mapped.buffer))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert got == [DATA] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_reservation_is_aborted_without_a_trace_and_committed_once(bus: Bus, tmp_path: Path) -> None:
    made = transport(bus, tmp_path)
    with made.reserve(10) as room:
        room.buffer[:] = b"0123456789"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="committed or aborted before"):
        room.commit()
    room = made.reserve(10)
    room.buffer[:4] = b"0123"
    assert room.commit(Meta(size=4)).size == 4
    room.abort()
    with pytest.raises(ValueError, match="at least one byte"):
        made.reserve(0)
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_left_is_swept_and_what_may_be_taken_up_is_not(tmp_path: Path) -> None:
    for name in ("999999999-ab.out", "999999999-ab.in", "new.part", "old.part", "strange"):
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / "old.part", (1, 1))

    assert sweep(tmp_path, time.time()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"new.part", "strange"}


def test_without_a_broker_it_fails_in_a_line(bus: Bus, tmp_path: Path) -> None:
    made = transport(bus, tmp_path)
    bus.close()

    with pytest.raises(BusError) as caught:
        stored(made)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
