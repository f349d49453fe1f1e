"""Files of a workspace: what is there can be used, and no name, link or exchange leads out of it."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox import BadCapability, Capabilities, Refused, Sandbox, Workspace
from morphogen.kernels.sandbox import workspace as module


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use the kernel's resolution, and the walk that stands in for it on older kernels."""
    if request.param == "walk":
        monkeypatch.setattr(
            module,
            "beneath",
            lambda root, parts, flags: module.walk(root, parts, flags) if parts else os.open(".", flags, dir_fd=root),
        )
    found: str = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("SECRET")
    (tmp_path / "work" / "notes").mkdir(parents=True)
    (tmp_path / "work" / "notes" / "a.txt").write_text("hello")
    return tmp_path / "work"


def test_files_are_read_written_listed_and_removed(folder: Path, way: str) -> None:
    files = Workspace(folder, write=True)

    assert files.read_text("notes/a.txt") == "hello"
    files.write_text("notes/b.txt", "é")
    files.append_text("notes/b.txt", "!")
    files.append_text("new.txt", "x")
    files.make_folder("deep")
    files.make_folder("deep")
    files.write_bytes("deep/c", b"\0\xff")
    assert files.read_bytes("notes/b.txt") == "é!".encode()
    assert files.list_folder() == ["deep/", "new.txt", "notes/"]
    assert files.list_folder("notes") == ["a.txt", "b.txt"]
    assert files.exists("deep/c")
    assert not files.exists("deep/d")
    assert not files.exists("no/such/folder")
    files.remove("deep/c")
    assert not files.exists("deep/c")
    assert sorted(os.listdir(folder / "notes")) == ["a.txt", "b.txt"], "no half-written file is left"


def test_what_is_not_there_or_not_allowed_is_refused_in_one_line(folder: Path, way: str) -> None:
    files = Workspace(folder, max_bytes=10)
    writing = Workspace(folder, write=True, max_bytes=10)
    (folder / "big").write_bytes(b"x" * 11)
    (folder / "latin").write_bytes(b"\xff")

    for action in (
        lambda: files.write_text("a", "b"), lambda: files.remove("notes/a.txt"), lambda: files.make_folder("x"),
        lambda: files.read_text("big"), lambda: files.read_text("latin"), lambda: writing.write_bytes("x", b"x" * 11),
        lambda: writing.write_text("none/x", "y"), lambda: writing.remove("none"), lambda: writing.make_folder("big"),
        lambda: writing.write_text("notes", "y"), lambda: files.list_folder("big"), lambda: files.read_text("notes"),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert str(folder) not in str(caught.value)
    with pytest.raises(BadCapability):
        Workspace(folder / "none")


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "notes",
        "link",
        "out",
        "secret",
        "a.txt",
        "proc",
        "self",
        "root",
        "fd",
        "/",
        "\0",
        "é",
        "\\",
        "x" * 300,
    ]
)


@given(st.lists(PIECES, max_size=6), st.booleans())
def test_no_path_leads_to_the_secret(tmp_path_factory: pytest.TempPathFactory, pieces: list[str], write: bool) -> None:
    top = tmp_path_factory.mktemp("paths", numbered=True)
    (top / "outside").mkdir()
    (top / "outside" / "secret").write_text("SECRET")
    work = top / "work"
    work.mkdir()
    for name, target in (
        ("link", "../outside/secret"),
        ("out", "../outside"),
        ("root", "/"),
        ("proc", "/proc"),
        ("fd", "/proc/self/fd"),
    ):
        (work / name).symlink_to(target)
    files = Workspace(work, write=True)
    path = "/".join(pieces)
    try:
        if write:
            files.write_text(path, "changed")
        else:
            assert "SECRET" not in files.read_text(path)
    except (Refused, FileNotFoundError):
        pass

    assert (top / "outside" / "secret").read_text() == "SECRET"
    assert sorted(os.listdir(top / "outside")) == ["secret"]
    assert (work / "link").is_symlink()


def test_a_folder_that_is_exchanged_for_a_link_while_it_is_used_leads_nowhere(folder: Path, way: str) -> None:
    (folder / "notes" / "secret").write_text("inside")
    files = Workspace(folder)
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            os.rename(folder / "notes", folder / "kept")
            os.symlink("../outside", folder / "notes")
            os.unlink(folder / "notes")
            os.rename(folder / "kept", folder / "notes")

    thread = threading.Thread(target=exchange)
    thread.start()
    told: set[str] = set()
    try:
        for _ in range(1500):
            try:
                told.add(files.read_text("notes/secret"))
            except (Refused, FileNotFoundError):
                continue
    finally:
        stop.set()
        thread.join()

    assert told <= {"inside"}


def test_a_tool_uses_them_by_name_and_each_use_is_recorded(folder: Path) -> None:
    text = """
def run(name):
    words = files.read_text(name).split()
    files.write_text("out.txt", " ".join(reversed(words)))
    try:
        files.read_text("../outside/secret")
    except ToolError as error:
        return [files.list_folder(), files.exists("out.txt"), str(error)]
"""
    with Sandbox(pool=1, capabilities=Capabilities(files=Workspace(folder, write=True))) as sandbox:
        outcome = sandbox.run(text, {"name": "notes/a.txt"})
    reading = Capabilities(files=Workspace(folder))

    assert outcome.error is None
    assert outcome.value == [
        ["notes/", "out.txt"], True,
        "'../outside/secret' is no path here; use plain parts below the workspace, without '.' or '..'",
    ]  # fmt: skip
    assert [(effect.name, effect.effect, effect.error is None) for effect in outcome.effects] == [
        ("files.read_text", "read", True), ("files.write_text", "write", True), ("files.read_text", "read", False),
        ("files.list_folder", "read", True), ("files.exists", "read", True),
    ]  # fmt: skip
    assert "files.write_text" not in reading.names
