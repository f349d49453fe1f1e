"""A blob is there whole and verified, once, or not at all."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from morphogen.bus import blobs
from morphogen.bus.aside import in_thread
from morphogen.bus.connection import Connection
from morphogen.bus.errors import BlobDamaged, BlobMissing
from morphogen.bus.reader import Message
from morphogen.bus.streams import BLOBS, stream_info

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]

MB = 1 << 20
UPLOAD = """
import asyncio, sys
from morphogen.bus import blobs
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings

def progress(done, total):
    print(done, flush=True)

async def main():
    conn = await connect(Settings.from_environ(), name="uploader")
    print((await blobs.put_file(conn, sys.argv[1], progress)).sha256, flush=True)
    await conn.close()

asyncio.run(main())
"""


def test_a_copy_of_the_stream_that_is_behind_hides_no_blob(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(blobs.CHUNK + 1)

    async def behind(*_args: object, **_named: object) -> None:
        return None

    async def nothing(*_args: object, **_named: object) -> AsyncGenerator[list[Message], None]:
        for batch in ():
            yield batch

    async def story(conn: Connection) -> None:
        sha256 = await blobs.put_bytes(conn, data)
        _, names = await blobs.chunk_names(conn, sha256)
        monkeypatch.setattr(conn, "last_message", behind)
        monkeypatch.setattr(blobs, "read", nothing)
        assert await blobs.get_bytes(conn, sha256) == data
        assert await blobs.get_chunk(conn, sha256, names[1]) == data[blobs.CHUNK :]
        with pytest.raises(BlobMissing):
            await blobs.get_bytes(conn, "ab" * 32)

    on_bus(story)


@pytest.mark.parametrize("length", [0, 1, blobs.CHUNK, 3 * blobs.CHUNK + 17])
def test_bytes_come_back_as_they_were(on_bus: OnBus, length: int) -> None:
    data = os.urandom(length)

    async def story(conn: Connection) -> None:
        sha256 = await blobs.put_bytes(conn, data)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert await blobs.get_bytes(conn, sha256) == data
        assert await blobs.exists(conn, sha256)
        assert await blobs.size(conn, sha256) == length
        before = await stream_info(conn, BLOBS)
        assert await blobs.put_bytes(conn, memoryview(data)) == sha256
        assert await stream_info(conn, BLOBS) == before
        assert await blobs.delete(conn, sha256)
        assert not await blobs.delete(conn, sha256)
        assert not await blobs.exists(conn, sha256)
        assert (await stream_info(conn, BLOBS)).messages == 0
        with pytest.raises(BlobMissing, match=sha256):
            await blobs.get_bytes(conn, sha256)

    on_bus(story)


def test_what_is_no_hash_is_told(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        for text in ("", "*", ">", "a" * 63 + ".", "A" * 64):
            with pytest.raises(BlobMissing, match="64 hexadecimal"):
                await blobs.get_bytes(conn, text)

    on_bus(story)


def test_a_file_goes_and_comes_with_progress(on_bus: OnBus, tmp_path: Path) -> None:
    source, target = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(os.urandom(2 * MB + 3))
    told: list[tuple[int, int]] = []

    async def story(conn: Connection) -> None:
        ref = await blobs.put_file(conn, source, lambda done, total: told.append((done, total)))
        assert ref.size == 2 * MB + 3
        assert told[-1] == (ref.size, ref.size)
        told.clear()
        target.write_bytes(b"older")
        size = await blobs.get_file(conn, ref.sha256, target, lambda done, total: told.append((done, total)))
        assert (size, told[-1]) == (ref.size, (ref.size, ref.size))
        assert target.read_bytes() == source.read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.bin", "out.bin"]

    on_bus(story)


def test_a_bad_byte_is_noticed_and_leaves_no_file(on_bus: OnBus, tmp_path: Path) -> None:
    data = os.urandom(2 * MB)

    async def story(conn: Connection) -> None:
        sha256 = await blobs.put_bytes(conn, data)
        _, names, _ = blobs._examine(blobs._Bytes(data))
        subject = f"morphogen.blob.{sha256}.{names[1]}"
        message = await conn.last_message(BLOBS, subject)
        assert message is not None
        await conn.js(f"STREAM.MSG.DELETE.{BLOBS}", {"seq": message.seq})
        bad = bytes([message.data[0] ^ 1]) + message.data[1:]
        await conn.publish_ack(subject, bad)
        with pytest.raises(BlobDamaged, match="another hash"):
            await blobs.get_file(conn, sha256, tmp_path / "out")
        with pytest.raises(BlobDamaged, match="another hash"):
            await blobs.get_bytes(conn, sha256)
        assert list(tmp_path.iterdir()) == []

        found = await conn.last_message(BLOBS, subject)
        assert found is not None
        await conn.js(f"STREAM.MSG.DELETE.{BLOBS}", {"seq": found.seq})
        with pytest.raises(BlobDamaged, match="lacks chunk"):
            await blobs.get_bytes(conn, sha256)
        await conn.publish_ack(subject, message.data)  # now it lies behind the others
        assert await blobs.get_bytes(conn, sha256) == data

    on_bus(story)


def test_two_who_store_the_same_at_once_store_it_once(on_bus: OnBus, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(8 * MB))

    async def story(conn: Connection) -> None:
        command = [sys.executable, "-c", UPLOAD, str(source)]
        processes = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
        here = await blobs.put_file(conn, source)
        for process in processes:
            output, _ = await process.communicate()
            assert process.returncode == 0
            assert output.split()[-1].decode() == here.sha256
        assert (await stream_info(conn, BLOBS)).messages == 16 + 1
        assert hashlib.sha256(await blobs.get_bytes(conn, here.sha256)).hexdigest() == here.sha256

    on_bus(story)


def test_an_upload_that_was_killed_is_invisible_and_goes_on_where_it_ended(on_bus: OnBus, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(24 * MB))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()

    async def story(conn: Connection) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UPLOAD, str(source), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        while int(await process.stdout.readline()) < 16 * MB:
            pass
        process.send_signal(signal.SIGKILL)
        await process.wait()
        partly = (await stream_info(conn, BLOBS)).last_seq
        assert 0 < partly < 48
        assert not await blobs.exists(conn, sha256)
        with pytest.raises(BlobMissing):
            await blobs.get_bytes(conn, sha256)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: 2**62)  # of this host, which is far ahead
            assert await blobs.clean(conn) == 0

        await blobs.put_file(conn, source)

        info = await stream_info(conn, BLOBS)
        assert info.messages == info.last_seq == 48 + 1
        assert hashlib.sha256(await blobs.get_bytes(conn, sha256)).hexdigest() == sha256
        assert await blobs.clean(conn, older_than=0) == 0

        for name in (await conn.js(f"STREAM.INFO.{BLOBS}", {"subjects_filter": ">"}))["state"]["subjects"]:
            if name.endswith("manifest"):
                await blobs._purge(conn, name)
        assert await blobs.clean(conn, older_than=0) == 1
        assert (await stream_info(conn, BLOBS)).messages == 0

    on_bus(story)


def test_a_killed_broker_costs_an_upload_nothing(on_bus: OnBus, tmp_path: Path) -> None:
    data = os.urandom(16 * MB)

    async def story(conn: Connection) -> None:
        async def kill() -> None:
            while (await stream_info(conn, BLOBS)).messages < 5:
                await asyncio.sleep(0.002)
            assert conn.endpoint.pid is not None
            os.kill(conn.endpoint.pid, signal.SIGKILL)

        killing = asyncio.create_task(kill())
        sha256 = await blobs.put_bytes(conn, data)
        await killing
        await asyncio.sleep(0.05)
        await conn.wait_connected(10)
        assert await blobs.get_bytes(conn, sha256) == data

    on_bus(story)


def test_a_file_that_changes_while_it_is_stored_is_not_stored(
    on_bus: OnBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "moving"
    source.write_bytes(bytes(MB))
    examine = blobs._examine

    def then_changed(what: blobs._Source) -> tuple[str, list[str], int]:
        found = examine(what)
        source.write_bytes(b"x" * MB)
        return found

    monkeypatch.setattr(blobs, "_examine", then_changed)

    async def story(conn: Connection) -> None:
        with pytest.raises(BlobDamaged, match="changed"):
            await blobs.put_file(conn, source)
        assert not await blobs.exists(conn, hashlib.sha256(bytes(MB)).hexdigest())

    on_bus(story)


def test_links_pipes_and_folders_stay_what_they_are(on_bus: OnBus, tmp_path: Path) -> None:
    data = os.urandom(2 * MB)
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_bytes(b"older")
    link.symlink_to(real)
    os.mkfifo(pipe)

    async def story(conn: Connection) -> None:
        sha256 = await blobs.put_bytes(conn, data)
        assert await blobs.get_file(conn, sha256, link) == len(data)
        assert link.is_symlink()
        assert real.read_bytes() == data
        reading = asyncio.create_task(in_thread(pipe.read_bytes))
        assert await blobs.get_file(conn, sha256, pipe) == len(data)
        assert await reading == data
        assert pipe.is_fifo()
        with pytest.raises(IsADirectoryError, match="name a file in it"):
            await blobs.get_file(conn, sha256, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "real"]

    on_bus(story)


def test_a_device_without_an_end_is_refused(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(conn: Connection) -> None:
        assert (await blobs.put_file(conn, "/dev/null")).size == 0
        monkeypatch.setattr(shutil, "copyfileobj", lambda *given: pytest.fail("it is read"))
        with pytest.raises(OSError, match="may have no end: '/dev/zero'"):
            await blobs.put_file(conn, "/dev/zero")

    on_bus(story)


def test_a_pipe_that_is_not_read_to_its_end_leaves_no_file(
    on_bus: OnBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "tmp"
    os.mkfifo(pipe)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    async def story(conn: Connection) -> None:
        putting = asyncio.create_task(blobs.put_file(conn, pipe))
        with await in_thread(lambda: pipe.open("wb")) as writing:
            await in_thread(lambda: writing.write(b"x" * MB))
            assert list(folder.iterdir()) == []  # so nothing stays of a process that is killed
        assert (await putting).size == MB

    on_bus(story)


def test_what_can_be_read_only_once_is_stored_too(on_bus: OnBus, tmp_path: Path) -> None:
    data, pipe = os.urandom(2 * MB), tmp_path / "pipe"
    os.mkfifo(pipe)

    async def story(conn: Connection) -> None:
        writing = asyncio.create_task(in_thread(lambda: pipe.write_bytes(data)))
        ref = await blobs.put_file(conn, pipe)
        await writing
        assert ref == (hashlib.sha256(data).hexdigest(), len(data))
        assert await blobs.get_bytes(conn, ref.sha256) == data

    on_bus(story)
