"""A file holds a whole state or is not there; what is not whole is refused before a byte of it is used."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.kernels.kv import KvError, KvRefused, KvState, export_kv, import_kv, open_kv
from morphogen.kernels.kv.files import create
from morphogen.schemas.kv import KvRef

from . import models
from .test_format import state_of


def test_a_state_goes_through_a_file(llama: Callable[..., Any], tmp_path: Path) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(100))
    path = tmp_path / "deep" / "er" / "a.kv"

    ref = export_kv(read, into=path, details={"session": "s1"})

    assert isinstance(ref, KvRef)
    assert (ref.transport, ref.place, ref.size) == ("disk", str(path), path.stat().st_size)
    state = open_kv(path)
    assert (state.count, state.header.details, state.checksum) == (100, {"session": "s1"}, ref.checksum)
    assert import_kv(took, ref).tokens == 100
    assert import_kv(took, str(path)).tokens == 100
    assert os.listdir(path.parent) == ["a.kv"]


def test_a_state_in_memory_is_saved_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.kv"
    KvState.read(state_of([1, 2], b"x" * 9000)).save(path)
    older = open_kv(path)

    KvState.read(state_of([3], b"y")).save(path)

    assert open_kv(path).tokens.tolist() == [3]
    assert bytes(older.verify()) == b"x" * 9000  # whoever has it mapped still sees the old one
    assert os.listdir(tmp_path) == ["a.kv"]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 500, 4095, 4096, 9000])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.kv"
    KvState.read(state_of([1, 2], b"x" * 9000)).save(path)
    with path.open("r+b") as file:
        file.truncate(size)

    with pytest.raises(KvRefused, match=r"a\.kv: ") as caught:
        open_kv(path)
    assert "\n" not in str(caught.value)


def test_a_reference_beyond_the_end_is_refused(tmp_path: Path) -> None:
    ref = KvState.read(state_of([1, 2], b"x")).save(tmp_path / "a.kv")

    with pytest.raises(KvRefused, match="cut off"):
        open_kv(ref.place, offset=4096, size=ref.size)
    with pytest.raises(KvRefused, match="cut off"):
        open_kv(ref.place, offset=-1, size=10)


def test_a_state_inside_a_larger_file_is_found_by_its_offset(tmp_path: Path) -> None:
    room = bytes(state_of([5, 6], b"payload"))
    (tmp_path / "two").write_bytes(bytes(4096) + room + b"more")

    assert open_kv(tmp_path / "two", offset=4096, size=len(room)).tokens.tolist() == [5, 6]


def test_a_failed_export_leaves_the_older_file(llama: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.kv"
    path.write_bytes(b"older")

    with pytest.raises(ValueError, match="in the middle"), create(path, 5000):
        raise ValueError("in the middle")
    with pytest.raises(KvError, match="no state was written"), create(path, 5000):
        pass

    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a.kv"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with (
            pytest.raises(KvError, match=r"the state cannot be written to .*: File too large"),
            create(tmp_path / "a", 50_000),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(KvError, match="the state cannot be written to"), create(tmp_path / "file" / "a.kv", 100):
        pass


def test_a_folder_in_the_way_is_told_and_nothing_is_left_beside_it(llama: Callable[..., Any], tmp_path: Path) -> None:
    read = llama()
    read.eval(models.prompt(10))
    (tmp_path / "a.kv").mkdir()

    with pytest.raises(KvError, match="it is a folder; name a file in it"):
        export_kv(read, into=tmp_path / "a.kv")
    with pytest.raises(KvError, match=r"[Ii]s a directory"), create(tmp_path / "b.kv", 5000) as room:
        (tmp_path / "b.kv").mkdir()  # it comes while the state is being written
        room.used = 5000

    assert sorted(os.listdir(tmp_path)) == ["a.kv", "b.kv"]


def test_what_is_no_plain_file_stays_what_it_is_and_a_link_a_link(llama: Callable[..., Any], tmp_path: Path) -> None:
    read = llama()
    read.eval(models.prompt(10))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.kv").symlink_to(tmp_path / "deep" / "a.kv")
    (tmp_path / "loop.kv").symlink_to("loop.kv")

    with pytest.raises(KvError, match="its links lead in a circle"):
        export_kv(read, into=tmp_path / "loop.kv")
    assert (tmp_path / "loop.kv").is_symlink()
    with pytest.raises(KvError, match="it is no plain file; name another one"):
        export_kv(read, into=tmp_path / "pipe")
    export_kv(read, into=tmp_path / "link.kv")

    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "link.kv").is_symlink()
    assert open_kv(tmp_path / "deep" / "a.kv").count == 10


@pytest.mark.parametrize("name", ["n" * 240, "é" * 120])
def test_a_name_as_long_as_a_name_may_be_can_be_written(llama: Callable[..., Any], tmp_path: Path, name: str) -> None:
    read = llama()
    read.eval(models.prompt(10))

    export_kv(read, into=tmp_path / name)

    assert open_kv(tmp_path / name).count == 10


def test_a_name_that_is_no_utf8_is_a_name_and_one_that_no_file_can_have_is_told(
    llama: Callable[..., Any], tmp_path: Path
) -> None:
    read = llama()
    read.eval(models.prompt(10))
    path = tmp_path / os.fsdecode(b"a\xff.kv")

    export_kv(read, into=path)

    assert open_kv(path).count == 10
    with pytest.raises(KvError, match="cannot be the name of a file"):
        export_kv(read, into=tmp_path / "a\ud800.kv")


def test_a_killed_writer_leaves_neither_a_state_nor_a_part(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from morphogen.kernels.kv.files import create\n"
        "with create(sys.argv[1], 1 << 22) as room:\n"
        "    room.buffer[:5] = b'begun'\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tmp_path / "a.kv"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"writing\n"
        process.kill()
        process.wait()
    time.sleep(0.05)

    left = os.listdir(tmp_path)
    assert all(name.endswith(".part") for name in left)  # none at all where the file system knows nameless files
    if hasattr(os, "O_TMPFILE"):
        assert left == []
