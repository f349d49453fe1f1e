"""What is told when a session goes on: once, by whoever brought it, and with what was refused on the way."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.consumers.kv.continuity import Session
from morphogen.consumers.kv.speaker import LlamaSpeaker
from morphogen.schemas import Event
from morphogen.schemas.kv import KvRejected, SessionLoaded, SessionTurn

STORY = "Once upon a time there was a fox that ran over the hills and far away, to the sea and back again."


@pytest.fixture
def told() -> list[Event]:
    """What was told."""
    return []


@pytest.fixture
def begin(tmp_path: Path, told: list[Event]) -> Callable[..., Session]:
    """Open a session on a Llama: begin(llm, name=...)."""

    def make(llm: Any, name: str = "s1", every: int | None = 16) -> Session:
        return Session(name, LlamaSpeaker(llm), tmp_path / name, tell=told.append, every=every)

    return make


def of(told: list[Event], kind: type[Event]) -> list[Any]:
    return [event for event in told if type(event) is kind]


def left_behind(begin: Callable[..., Session], llm: Any, told: list[Event]) -> list[Path]:
    """Leave a session in the middle of a reply; return its saved states, the longest last."""
    talk = begin(llm)
    talk.say(STORY)
    for _, _ in zip(range(60), talk.generate(100), strict=False):
        pass
    talk.close()
    told.clear()
    kept = sorted(talk.conversation.kept.values(), key=lambda one: one.tokens)
    return [path for one in kept if (path := talk.folder / one.file).is_file()]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_the_first_use_tells_once_that_a_session_of_an_earlier_process_goes_on(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    left_behind(begin, llama(), told)
    talk = begin(llama())
    tokens = len(talk.tokens)

    "".join(talk.resume())
    talk.say("And then?")
    talk.reply(5)

    (loaded,) = of(told, SessionLoaded)
    assert (loaded.tokens, loaded.pending) == (tokens, True)
    assert 0 < loaded.recomputed <= 17
    assert loaded.restored + loaded.recomputed == tokens
    assert loaded.duration_ns is not None


@pytest.mark.parametrize("every", [16, None], ids=["with-states", "journal-only"])
def test_what_is_said_before_the_first_reply_was_not_there_to_be_computed_again(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event], every: int | None
) -> None:
    talk = begin(llama(), every=every)
    talk.say(STORY)
    talk.reply(40)
    tokens = len(talk.tokens)
    talk.close()
    again = begin(llama(), every=every)

    again.say(STORY)
    again.reply(5)

    (loaded,) = of(told, SessionLoaded)
    assert loaded.restored + loaded.recomputed == tokens
    assert (loaded.restored > 0) == (every is not None)


def test_a_session_that_is_loaded_by_a_call_is_not_told_again_by_its_use(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    left_behind(begin, llama(), told)
    talk = begin(llama())

    talk.load_continuity()
    "".join(talk.resume())

    assert len(of(told, SessionLoaded)) == 1


@pytest.mark.parametrize(
    "brought",
    [lambda talk, folder: talk.settle_in(folder), lambda talk, folder: talk.loaded(3, 4)],
    ids=["adopted", "told"],
)
def test_a_session_that_somebody_brought_is_told_by_that_one(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event], tmp_path: Path, brought: Any
) -> None:
    left_behind(begin, llama(), told)
    talk = begin(llama())

    brought(talk, tmp_path / "settled")
    "".join(talk.resume())

    assert of(told, SessionLoaded) == []


def test_nothing_is_told_to_go_on_where_a_session_never_went_away(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    shared = llama()
    one, other = begin(shared, "one"), begin(shared, "other")
    for text in (STORY, "And then?", "Why?"):  # each has the model read its own words anew
        for talk in (one, other):
            talk.say(text)
            talk.reply(20)
    other.close()
    other = begin(shared, "other")
    other.say("And?")
    other.reply(5)

    assert of(told, SessionLoaded) == []
    assert of(told, KvRejected) == []


def test_each_saved_state_that_is_refused_is_told_with_its_reason(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    paths = left_behind(begin, llama(), told)
    assert len(paths) == 2
    for path in paths:
        damage(path)
    talk = begin(llama(), every=None)

    with caplog.at_level(logging.WARNING, "morphogen.kv"):
        "".join(talk.resume())

    rejected = of(told, KvRejected)
    assert {event.state for event in rejected} == {path.stem for path in paths}
    assert all("checksum" in event.reason and event.session == "s1" for event in rejected)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(line.startswith("session s1: the saved KV state ") and "checksum" in line for line in lines)
    (loaded,) = of(told, SessionLoaded)
    assert (loaded.restored, loaded.recomputed) == (0, loaded.tokens)


def test_what_is_restored_from_the_next_longest_state_counts_as_restored(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    paths = left_behind(begin, llama(), told)
    damage(paths[-1])
    talk = begin(llama())
    second = talk.conversation.kept[paths[-2].stem].tokens

    loaded = talk.load_continuity()

    assert loaded.restored == second
    assert loaded.refused is not None
    assert paths[-1].name in loaded.refused


def test_a_refusal_is_told_where_nothing_is_computed_yet(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    paths = left_behind(begin, llama(), told)
    damage(paths[-1])
    talk = begin(llama())

    talk.recall()
    assert [event.state for event in of(told, KvRejected)] == [paths[-1].stem]
    assert of(told, SessionLoaded) == []
    "".join(talk.resume())

    (loaded,) = of(told, SessionLoaded)
    assert loaded.restored > 100
    assert len(of(told, KvRejected)) == 1


def test_a_turn_tells_how_many_tokens_and_records_there_are(
    llama: Callable[..., Any], begin: Callable[..., Session], told: list[Event]
) -> None:
    talk = begin(llama())
    for text in (STORY, "And then?"):
        talk.say(text)
        assert of(told, SessionTurn)[-1].total == len(talk.tokens)
        talk.reply(10)
        last = of(told, SessionTurn)[-1]
        assert (last.total, last.revision) == (len(talk.tokens), talk.conversation.revision)
