"""`morphogen know`: what it prints, what it exits with, and that nothing makes it crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.cli.app import run

from .programs import FUSE, TASK, VALID, WHOLE

WRONG = "system S {\n  knowledge { fact f(t: Prf) { return t.x > 1 } }\n}\n"
HINTED = 'system S { trace_schema { variant V { case Perf { x: int } } } knowledge { rule "R" { when: "odd" apply: "x" } } }\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fuse.mk").write_text(FUSE)
    (tmp_path / "wrong.mk").write_text(WRONG)
    (tmp_path / "hinted.mk").write_text(HINTED)
    (tmp_path / "whole.mk").write_text(WHOLE)
    (tmp_path / "binary.mk").write_bytes(bytes(range(256)))
    return tmp_path


def morphogen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "morphogen.cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ,
    )


def test_a_fine_module_is_said_to_be_fine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "check", str(folder / "fuse.mk")]) == 0
    assert capsys.readouterr().out == f"{folder}/fuse.mk: fine\n"


def test_an_error_is_shown_with_its_line_and_a_caret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "check", str(folder / "wrong.mk"), str(folder / "hinted.mk")]) == 1

    out = capsys.readouterr().out
    assert f"{folder}/wrong.mk:2:15: error[K103]: no case is called `Prf`\n2 |   knowledge" in out
    assert "note[K310]" in out
    assert out.endswith(f"{folder}/hinted.mk: 1 note\n")


def test_json_has_every_finding_of_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "check", "--json", str(folder / "wrong.mk"), str(folder / "fuse.mk")]) == 1

    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], [one["ok"] for one in found["files"]]) == (False, [False, True])
    (finding,) = found["files"][0]["diagnostics"]
    assert (finding["code"], finding["line"], finding["column"], finding["severity"]) == ("K103", 2, 15, "error")
    assert WRONG[finding["start"] :].startswith("fact f")


def test_strict_takes_warnings_for_errors(tmp_path: Path) -> None:
    path = tmp_path / "warned.mk"
    path.write_text('task T { step s: tool.run { cmd: "x" output_var: n } }')

    assert run(["know", "check", str(path)]) == 0
    assert run(["know", "check", "--strict", str(path)]) == 1


@pytest.mark.parametrize("verb", ["check", "fmt", "explain", "graph"])
@pytest.mark.parametrize("name", ["nowhere.mk", "", "binary.mk"])
def test_what_is_no_module_file_is_one_line_and_exit_2(
    folder: Path, verb: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["know", verb, str(folder / name)]) == 2

    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("morphogen: ")


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "--nonsense"], ["nonsense"], ["graph", "-f", "png", "x.mk"], ["explain"]]
)
def test_wrong_use_is_exit_2(arguments: list[str]) -> None:
    assert run(["know", *arguments]) == 2


def test_an_unreadable_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "check", "/proc/self/mem"]) == 2  # whoever asks, reading it fails

    err = capsys.readouterr().err
    assert err == "morphogen: cannot read /proc/self/mem: Input/output error\n"


@pytest.mark.parametrize("verb", ["explain", "graph"])
def test_a_module_with_errors_is_not_explained(folder: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", verb, str(folder / "wrong.mk")]) == 1
    assert "error[K103]" in capsys.readouterr().err


def test_fmt_writes_in_place_and_then_has_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "fuse.mk"
    path.chmod(0o640)
    link = folder / "link.mk"
    link.symlink_to(path)

    assert run(["know", "fmt", "--check", str(link)]) == 1
    assert path.read_text() == FUSE
    assert run(["know", "fmt", str(link)]) == 0
    assert path.read_text() != FUSE
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert run(["know", "fmt", "--check", str(path)]) == 0
    capsys.readouterr()
    assert run(["know", "fmt", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert sorted(one.name for one in folder.iterdir() if one.name.startswith(".")) == []


def test_fmt_shows_a_diff_and_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "fmt", "--diff", str(folder / "fuse.mk")]) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"--- {folder}/fuse.mk as it is\n+++ ")
    assert (folder / "fuse.mk").read_text() == FUSE


def test_fmt_leaves_what_does_not_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.mk"
    path.write_text("system S {")

    assert run(["know", "fmt", str(path)]) == 1
    assert path.read_text() == "system S {"
    assert "error" in capsys.readouterr().err


def test_standard_input_is_read_where_a_dash_stands() -> None:
    formatted = morphogen("know", "fmt", "-", stdin=FUSE.encode())
    checked = morphogen("know", "check", "-", stdin=WRONG.encode())

    assert (formatted.returncode, formatted.stderr) == (0, b"")
    assert b"fact slow" in formatted.stdout
    assert checked.returncode == 1
    assert checked.stdout.startswith(b"<stdin>:2:15: error[K103]")


def test_bytes_on_standard_input_that_are_no_text_are_one_line() -> None:
    done = morphogen("know", "check", "-", stdin=bytes(range(256)))

    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_closed_pipe_is_no_crash(folder: Path) -> None:
    many = [str(folder / "wrong.mk")] * 700
    with subprocess.Popen(
        [sys.executable, "-m", "morphogen.cli", "know", "check", *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)

    assert b"Traceback" not in err
    assert process.returncode in (0, 1)


def test_explain_tells_all_or_one_thing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "explain", str(folder / "whole.mk")]) == 0
    assert "System Gemm" in capsys.readouterr().out
    assert run(["know", "explain", str(folder / "whole.mk"), "is_slow"]) == 0
    assert capsys.readouterr().out.startswith("is_slow: true of a Performance when speedup is below ENOUGH")
    assert run(["know", "explain", str(folder / "whole.mk"), "is_slwo"]) == 1
    assert "did you mean `is_slow`" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "start"), [("mermaid", "flowchart LR"), ("dot", "digraph"), ("json", "{")])
def test_graph_draws_in_every_format(folder: Path, form: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "graph", "--format", form, str(folder / "whole.mk")]) == 0
    assert capsys.readouterr().out.startswith(start)


def test_the_language_server_without_pygls_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pygls", None)
    for name in [one for one in sys.modules if one.startswith(("pygls.", "morphogen.cli.language_server"))]:
        monkeypatch.delitem(sys.modules, name)

    assert run(["know", "lsp"]) == 1
    assert capsys.readouterr().err == "morphogen: the language server needs pygls: pip install 'morphogen[lsp]'\n"


@pytest.mark.parametrize("verb", ["check", "fmt", "explain"])
def test_without_lark_one_line_names_the_extra(folder: Path, verb: str) -> None:
    code = (
        "import sys; sys.modules['lark'] = None\n"
        "from morphogen.cli.app import run\n"
        f"sys.exit(run(['know', {verb!r}, {str(folder / 'fuse.mk')!r}]))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "pip install 'morphogen[knowledge]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_formatting_a_program_changes_nothing_that_is_found(text: str) -> None:
    from morphogen.schemas.knowledge.format import format_text
    from morphogen.schemas.knowledge.program import load_text

    assert load_text(format_text(text)).module == load_text(text).module


def test_the_task_is_explained_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "task.mk"
    path.write_text(TASK)

    assert run(["know", "explain", str(path), "Greet"]) == 0
    assert "step ask" in capsys.readouterr().out


def test_the_graphs_of_several_files_are_one_json_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["know", "graph", "-f", "json", str(folder / "fuse.mk")]) == 0
    one = json.loads(capsys.readouterr().out)
    assert run(["know", "graph", "-f", "json", str(folder / "fuse.mk"), str(folder / "whole.mk")]) == 0

    both = json.loads(capsys.readouterr().out)

    assert len(both) == 2
    assert both[0] == one
