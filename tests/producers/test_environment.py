"""What a run was started with is found out, and secrets are not looked at."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from morphogen.producers import environment
from morphogen.producers.environment import attempt_of, describe, git_state, hosts, rank_of
from morphogen.schemas import RunStarted, encode


def test_everything_found_out_fits_the_event() -> None:
    found = describe({"RANK": "3", "WORLD_SIZE": "8", "AWS_SECRET_ACCESS_KEY": "hidden", "WANDB_API_KEY": "hidden"})

    encode(RunStarted(**found))
    assert found["world_size"] == 8
    assert found["environment"] == {"RANK": "3", "WORLD_SIZE": "8"}
    assert "hidden" not in repr(found)


def test_a_checkout_tells_its_commit_and_whether_it_is_clean(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) == (None, None)
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")

    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)[1] is True


def test_packages_whose_metadata_cannot_be_read_tell_their_version_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PermissionError(13, "Permission denied")

    jax = ModuleType("jax")
    jax.__version__ = "7"  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setitem(sys.modules, "jax", jax)

    assert environment.versions()["jax"] == "7"


def test_no_git_on_the_machine_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert git_state(tmp_path) == (None, None)


@pytest.mark.parametrize(
    ("env", "rank"),
    [
        ({}, 0),
        ({"RANK": "2"}, 2),
        ({"SLURM_PROCID": "5"}, 5),
        ({"MORPHOGEN_RANK": "1", "RANK": "2"}, 1),
        ({"RANK": "x"}, 0),
    ],
)
def test_the_rank_is_what_the_launcher_says(env: dict[str, str], rank: int) -> None:
    assert rank_of(env) == rank


def test_the_attempt_may_be_named() -> None:
    assert attempt_of({}) is None
    assert attempt_of({"MORPHOGEN_ATTEMPT": "3"}) == 3
    assert attempt_of({"MORPHOGEN_ATTEMPT": "0"}) is None


def test_the_hosts_of_a_job() -> None:
    assert hosts({"SLURM_NODELIST": "node[1-4]"})[0] == "node[1-4]"
    assert len(hosts({})) == 1


def test_what_git_says_is_read_as_utf8_whatever_the_locale() -> None:
    code = "from morphogen.producers.environment import describe; describe()"
    strict = [
        "-X",
        "warn_default_encoding",
        "-W",
        "error::EncodingWarning:morphogen",
        "-W",
        "error::EncodingWarning:subprocess",
    ]
    done = subprocess.run(
        [sys.executable, *strict, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
