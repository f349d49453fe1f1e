"""Ctrl-C in the middle of a reply: what was written is heard, so that the reply goes on, or ends, with all of its text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.consumers.kv.continuity import Session
from morphogen.consumers.kv.speaker import LlamaSpeaker

STORY = "Once upon a time there was a fox that ran over the hills and far away, to the sea and back again."


@pytest.fixture
def interrupted(llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that was interrupted when the 11th token of its reply was written and not heard."""
    talk = Session("s1", LlamaSpeaker(llama()), tmp_path / "s1")
    talk.say(STORY)
    pieces = talk.generate(30)
    start = len(talk.tokens)
    while len(talk.tokens) < start + 10:
        next(pieces)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(talk, "_hear", stop)
        with pytest.raises(KeyboardInterrupt):
            next(pieces)
    assert len(talk.tokens) == start + 11
    return talk


def test_it_goes_on_as_if_nobody_had_interrupted_it(
    interrupted: Session, llama: Callable[..., Any], tmp_path: Path
) -> None:
    whole = Session("whole", LlamaSpeaker(llama()), tmp_path / "whole")
    whole.say(STORY)
    expected = whole.reply(30)

    "".join(interrupted.resume())

    assert interrupted.messages[-1].text == expected


def test_it_ends_with_what_its_tokens_say(interrupted: Session, llama: Callable[..., Any], tmp_path: Path) -> None:
    whole = Session("whole", LlamaSpeaker(llama()), tmp_path / "whole")
    whole.say(STORY)
    expected = whole.reply(11)

    interrupted.cancel()

    assert interrupted.messages[-1].text == expected
