"""The example that asks a model runs as its first lines say, and again from its own log."""

import shutil
from pathlib import Path

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops import runner
from morphogen.producers.loops.journal import answer
from morphogen.producers.loops.runner import Options

EXAMPLES = Path(__file__).parents[2] / "examples" / "knowledge"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / "change.txt", tmp_path)
    return tmp_path


def test_the_example_is_scripted_replayed_and_answered_by_hand(settings: Settings, workspace: Path) -> None:
    file, review = EXAMPLES / "ask.mk", workspace / "review.txt"
    with Bus.open(settings) as bus:

        def options(name: str, **given: str) -> Options:
            return Options(live=True, workspace=workspace, backend=name, backend_options=given)

        scripted = runner.start(
            bus, file, run="scripted", options=options("script", file=str(EXAMPLES / "ask.replies.toml"))
        )
        assert (scripted.status, review.read_text()) == ("done", "accepted with 0.9")

        review.unlink()
        replayed = runner.start(bus, file, run="replayed", options=options("replay", run="scripted"))
        assert (replayed.status, review.read_text()) == ("done", "accepted with 0.9")

        waiting = runner.start(bus, file, run="asked", options=options("suspend")).waiting
        assert waiting is not None
        assert "a change without a test is not done" in (waiting.system or "")
        answer(bus, "asked", waiting.path, waiting.sha256, "no idea")
        again = runner.resume(bus, "asked", options=Options()).waiting
        assert again is not None
        assert "the answer holds no JSON object" in again.reason
        answer(
            bus, "asked", again.path, again.sha256, '{"verdict": "revise", "score": 0.2, "reasons": ["no", "later"]}'
        )
        ended = runner.resume(bus, "asked", options=Options())
        assert (ended.status, review.read_text()) == ("failed", "to be revised: no,later")
