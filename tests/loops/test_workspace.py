"""The workspace is all that a step can reach."""

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from morphogen.producers.loops.errors import ToolRefused, WorkspaceError
from morphogen.producers.loops.workspace import Workspace


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "space")


def test_a_file_is_written_whole_into_folders_that_are_made(space: Workspace) -> None:
    space.write("a/b/c.txt", b"one")
    space.write("a/b/c.txt", b"two")

    assert space.read("a/b/c.txt") == b"two"
    assert os.listdir(space.root / "a" / "b") == ["c.txt"]
    assert space.exists("a/b")
    assert not space.exists("a/x/y")
    assert space.sha256("nothing") is None


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/passwd", "", "a\0b", ".."])
def test_a_path_that_leads_outside_is_refused(space: Workspace, name: str) -> None:
    with pytest.raises(ToolRefused):
        space.write(name, b"x")
    with pytest.raises(ToolRefused):
        space.read(name)
    assert not (space.root.parent / "out.txt").exists()


def test_an_absolute_path_inside_is_a_path_inside(space: Workspace) -> None:
    space.write(str(space.root / "a.txt"), b"x")

    assert space.read("a.txt") == b"x"


def test_links_are_never_followed(space: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("s")
    (space.root / "folder").symlink_to(tmp_path / "secret")
    (space.root / "file").symlink_to(tmp_path / "secret" / "key")

    for name in ("folder/key", "file"):
        with pytest.raises(ToolRefused, match="symbolic link"):
            space.read(name)
        with pytest.raises(ToolRefused, match="symbolic link"):
            space.write(name, b"x")
    with pytest.raises(ToolRefused, match="symbolic link"):
        space.folder("folder")
    assert (tmp_path / "secret" / "key").read_text() == "s"


def test_a_folder_swapped_for_a_link_while_it_is_written_to_lets_nothing_out(space: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = space.root / "inside"
    inside.mkdir()
    over = threading.Event()

    link = tmp_path / "link"

    def swap() -> None:
        while not over.is_set():
            link.symlink_to(outside)
            shutil.rmtree(inside, ignore_errors=True)
            with contextlib.suppress(OSError):
                link.replace(inside)
            with contextlib.suppress(OSError):
                inside.unlink()
            with contextlib.suppress(OSError):
                link.unlink()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            try:
                space.write("inside/a.txt", b"x")
            except (ToolRefused, WorkspaceError, FileNotFoundError):
                continue
    finally:
        over.set()
        swapping.join()

    assert list(outside.iterdir()) == []


def test_a_read_only_workspace_is_one_line(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)

    with pytest.raises(
        WorkspaceError, match=r"a\.txt cannot be written: Read-only file system; name another workspace"
    ):
        space.write("a.txt", b"x")
    assert list(space.root.iterdir()) == []


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WorkspaceError, match="is a file"):
        Workspace.open(tmp_path / "file")


def test_steps_cannot_write_the_policy_and_a_wrong_policy_is_told(space: Workspace) -> None:
    with pytest.raises(ToolRefused, match="policy"):
        space.write(".morphogen/policy.toml", b"")
    space.export(".morphogen/policy.toml", b'hosts = ["127.0.0.1"]\n')
    assert Workspace.open(space.root).policy.hosts == ("127.0.0.1",)
    space.export(".morphogen/policy.toml", b"host = 1\n")
    with pytest.raises(WorkspaceError, match="host is not understood"):
        Workspace.open(space.root)


def test_a_pipe_or_a_folder_is_no_file(space: Workspace) -> None:
    os.mkfifo(space.root / "pipe")
    (space.root / "folder").mkdir()

    for name in ("pipe", "folder"):
        with pytest.raises(ToolRefused, match="is not a file"):
            space.read(name)
        with pytest.raises(ToolRefused, match="is not a file"):
            space.write(name, b"x")


@pytest.mark.parametrize("name", ["L" * 300, "L" * 5000, "d/" * 3000 + "a", "a.txt/b.txt", "loop/b.txt", "\ud800"])
def test_a_path_that_the_system_does_not_take_is_refused_and_ends_nothing(space: Workspace, name: str) -> None:
    space.write("a.txt", b"x")
    (space.root / "loop").symlink_to("loop")

    with pytest.raises(ToolRefused):
        space.write(name, b"x")
    with contextlib.suppress(ToolRefused, NotADirectoryError):
        space.read(name)
    with contextlib.suppress(ToolRefused):
        assert space.sha256(name) is None
    with contextlib.suppress(ToolRefused):
        assert not space.exists(name)
    with contextlib.suppress(ToolRefused, NotADirectoryError):
        space.folder(name)


def test_a_folder_has_no_hash(space: Workspace) -> None:
    assert space.sha256(".") is None


def test_what_is_in_the_way_of_our_own_files_is_told_as_the_workspace(space: Workspace) -> None:
    (space.root / ".morphogen").write_text("")

    with pytest.raises(WorkspaceError, match="cannot be written"):
        space.export(".morphogen/trace.json", b"x")


def test_a_workspace_that_is_not_to_be_made_reads_as_an_empty_one(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path / "not" / "there", make=False)

    assert not space.exists("a.txt")
    assert space.sha256("a.txt") is None
    assert space.folder(".") == tmp_path / "not" / "there"
    with pytest.raises(FileNotFoundError):
        space.read("a.txt")
    assert not (tmp_path / "not").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.txt").write_text("x")
    assert Workspace.open(tmp_path / "there", make=False).read("a.txt") == b"x"
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="is a file"):
        Workspace.open(tmp_path / "file", make=False)
