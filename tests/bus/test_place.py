"""A file that is there whole or not at all, whatever stands in its place."""

import os
import threading
from pathlib import Path

import pytest

from morphogen.bus.place import replace, replacing


def test_a_file_is_replaced_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    path.chmod(0o640)
    with replacing(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["kept"]


def test_what_fails_half_way_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_link_stays_one_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("there", "not yet there"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(tmp_path / "far" / name)
    (tmp_path / "far" / "there").write_text("before")
    for name in ("there", "not yet there"):
        replace(tmp_path / f"link to {name}", "after")
        assert (tmp_path / f"link to {name}").is_symlink()
        assert (tmp_path / "far" / name).read_text() == "after"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    replace(pipe, b"through")
    reader.join(10)
    assert heard == [b"through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127])
def test_the_longest_names_can_be_taken(tmp_path: Path, name: str) -> None:
    replace(tmp_path / name, "there")
    assert (tmp_path / name).read_text() == "there"


def test_an_error_names_the_path_that_was_given(tmp_path: Path) -> None:
    for path in (tmp_path / "no such folder" / "file", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"No such file|File name too long") as caught:
            replace(path, "lost")
        assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="No space left") as full:
        replace(Path("/dev/full"), "lost")
    assert full.value.filename == "/dev/full"
    assert full.value.filename2 is None


def test_an_error_of_somebody_else_keeps_its_own_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "mine"):
        (tmp_path / "theirs").read_text()
    assert caught.value.filename == str(tmp_path / "theirs")
    assert os.listdir(tmp_path) == []
