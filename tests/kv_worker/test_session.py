"""A session goes on in another process as if it had never ended: the same messages, tokens and text."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint
from morphogen.consumers.kv import BlobTransport, Session, SessionBusy, SessionError, session
from morphogen.consumers.kv.beginning import _bring
from morphogen.consumers.kv.journal import Journal
from morphogen.kernels.kv import RawContext
from morphogen.kernels.kv.transport import Disk
from morphogen.schemas.kv import SessionLoaded, SessionSaved, SessionTurn

from ..kv.models import SWA, write_llama
from .nursery import born

STORY = "Once upon a time there was a fox that ran over the hills and far away, to the sea and back again."
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 5, "repeat_penalty": 1.1}

# Says and generates as the test does, and kills itself when so many tokens of the reply are there.
VICTIM = """
import os, signal, sys
from pathlib import Path
import llama_cpp
from morphogen.consumers.kv import session
model, name, after, every, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), eval(sys.argv[5])
llm = llama_cpp.Llama(model, n_ctx=1024, n_batch=64, n_threads=1, n_threads_batch=1, verbose=False)
talk = session(name, llm, every=every or None)
if not talk.messages:
    talk.say({story!r})
pieces = talk.resume() if talk.pending else talk.generate(100, **options)
for piece in pieces:
    print(piece, end="", flush=True)
    if len(talk.tokens) - talk.conversation.reply.start >= after:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(model: Path, name: str, after: int, every: int, options: dict[str, Any]) -> str:
    program, log = VICTIM.replace("{story!r}", repr(STORY)), Path(os.environ["MORPHOGEN_HOME"]) / "said"
    log.unlink(missing_ok=True)
    victim = born(program, [str(model), name, str(after), str(every), repr(options)], log)
    victim.join(90)
    assert victim.exitcode == -signal.SIGKILL, log.read_text()
    return log.read_text()


def whole(llama: Callable[..., Any], options: dict[str, Any]) -> Session:
    talk = session("never-killed", llama())
    talk.say(STORY)
    talk.reply(100, **options)
    talk.close()
    return talk


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("every", [16, 0], ids=["with-states", "journal-only"])
def test_a_reply_broken_off_by_sigkill_ends_with_the_text_of_one_that_was_not(
    llama: Callable[..., Any], model: Path, options: dict[str, Any], every: int
) -> None:
    expected = whole(llama, options)

    seen = killed(model, "s1", 37, every, options)
    seen += killed(model, "s1", 70, every, options)
    talk = session("s1", llama())
    assert talk.pending
    assert expected.messages[-1].text.startswith(seen)
    loaded = talk.load_continuity()
    rest = "".join(talk.resume())

    assert talk.messages == expected.messages
    assert talk.tokens == expected.tokens
    assert seen + rest == expected.messages[-1].text
    assert (loaded.restored > 100) == (every == 16)
    assert loaded.refused is None


def test_the_next_turn_after_a_kill_is_the_same_too(llama: Callable[..., Any], model: Path) -> None:
    one = session("one", llama())
    one.say(STORY)
    one.reply(100, **SAMPLED)
    one.say("And then?")
    one.reply(30, **SAMPLED)

    killed(model, "two", 60, 16, SAMPLED)
    two = session("two", llama())
    "".join(two.resume())
    two.say("And then?")
    two.reply(30, **SAMPLED)

    assert two.messages == one.messages
    assert two.tokens == one.tokens


def test_two_sessions_share_a_llama_by_turns_and_each_says_what_it_would_alone(llama: Callable[..., Any]) -> None:
    alone = session("alone", llama())
    alone.say("What is a fox?")
    first = alone.reply(20)
    alone.say("Why?")
    second = alone.reply(20)

    shared = llama()
    one, other = session("one", shared), session("other", shared)
    one.say("What is a fox?")
    other.say("Count the waves.")
    assert one.reply(20) == first
    assert other.reply(20) != first
    one.say("Why?")
    assert one.reply(20) == second


def test_a_saved_session_is_restored_and_not_computed(llama: Callable[..., Any]) -> None:
    talk = session("s1", llama())
    talk.say(STORY)
    talk.reply(20)
    saved = talk.save_continuity()
    talk.close()

    again = session("s1", llama())
    loaded = again.load_continuity()

    assert saved.tokens == loaded.tokens == len(again.tokens)
    assert loaded.restored == loaded.tokens - 1  # the last token was said and never read
    assert saved.ref is not None
    assert Path(saved.ref.place).stat().st_size == saved.ref.size


def test_a_damaged_state_is_refused_and_its_tokens_are_computed_to_the_same_text(llama: Callable[..., Any]) -> None:
    expected = whole(llama, SAMPLED)
    talk = session("s1", llama())
    talk.say(STORY)
    for _, _ in zip(range(40), talk.generate(100, **SAMPLED), strict=False):
        pass
    saved = talk.save_continuity()
    talk.close()
    assert saved.ref is not None
    path = Path(saved.ref.place)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)

    again = session("s1", llama())
    loaded = again.load_continuity()
    "".join(again.resume())

    assert loaded.restored == 0
    assert loaded.refused is not None
    assert "checksum" in loaded.refused
    assert again.messages == expected.messages


def test_a_state_of_other_weights_is_refused_by_name_and_the_words_stay(
    llama: Callable[..., Any], other_model: Path
) -> None:
    talk = session("s1", llama())
    talk.say(STORY)
    talk.reply(10)
    talk.save_continuity()
    talk.close()

    again = session("s1", llama(other_model))
    loaded = again.load_continuity()

    assert loaded.refused is not None
    assert "weights" in loaded.refused
    assert loaded.recomputed == loaded.tokens
    assert again.messages == talk.messages


def test_a_session_is_one_processs_at_a_time_and_one_replys(llama: Callable[..., Any]) -> None:
    talk = session("s1", llama())
    with pytest.raises(SessionBusy, match="session s1 is in use by process"):
        session("s1", llama())
    talk.say("Hello")
    next(talk.generate(50))
    with pytest.raises(SessionBusy, match="in the middle of a reply"):
        talk.say("More")
    with pytest.raises(SessionBusy, match="in the middle of a reply"):
        talk.generate(5)
    part = talk.partial
    talk.cancel()
    assert talk.messages[-1].text == part
    talk.say("More")
    assert talk.reply(5)


def test_what_cannot_be_said_is_refused_and_changes_nothing(llama: Callable[..., Any]) -> None:
    talk = session("s1", llama(n_ctx=64), template=False)
    with pytest.raises(SessionError, match="the context has room for"):
        talk.say("x" * 500)
    with pytest.raises(SessionError, match="at most 0 tokens"):
        talk.generate(0)
    with pytest.raises(SessionError, match="temperature"):
        talk.generate(5, temperature=-1.0)
    assert talk.conversation.revision == 1
    talk.say("abc")
    talk.reply(200)
    assert talk.finish == "length"
    assert len(talk.tokens) <= 64


@pytest.mark.parametrize(
    "begin",
    [
        lambda talk: talk.generate(5, temperature=1.0, top_k=1.5),
        lambda talk: talk.generate(2.5),
        lambda talk: talk.generate(5, stop=["a", 3]),
        lambda talk: talk.generate(5, stop="\ud800"),
        lambda talk: talk.generate(5, temperature=1.0, seed=2**70),
        lambda talk: talk.begin(2**70),
        lambda talk: talk.say("a\ud800b"),
        lambda talk: talk.say("b", role=5),
        lambda talk: talk.say("b", role="\udfff"),
    ],
)
def test_what_no_journal_can_hold_is_refused_and_the_session_is_there_the_next_time(
    llama: Callable[..., Any], begin: Callable[[Any], object]
) -> None:
    talk = session("s1", llama(), template=False)
    talk.say("abc")
    revision = talk.conversation.revision

    with pytest.raises(SessionError) as caught:
        begin(talk)

    assert "\n" not in str(caught.value)
    assert (talk.conversation.revision, talk.pending) == (revision, False)
    talk.close()
    again = session("s1", llama(), template=False)
    assert again.conversation.revision == revision
    assert again.reply(3)


def test_none_is_the_default_and_a_number_of_numpys_a_number(llama: Callable[..., Any]) -> None:
    talk = session("s1", llama(), template=False)
    talk.say("abc")
    text = talk.reply(
        None, temperature=None, top_k=None, top_p=None, min_p=None, repeat_penalty=None, seed=None, stop=None
    )
    assert (talk.finish, len(talk.tokens) > 256) == ("length", True)
    assert text

    talk.reply(np.int64(3), temperature=np.float32(0.5), top_k=np.int32(40), seed=np.int64(3))
    talk.close()
    other = session("s2", llama(), template=False)
    other.say("abc")
    assert other.reply(256) == text
    assert other.reply(3, temperature=float(np.float32(0.5)), top_k=40, seed=3) == talk.messages[-1].text


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (lambda talk: talk.generate("5"), "max_tokens is a whole number, not '5'"),
        (lambda talk: talk.generate(5, temperature="hot"), "temperature is a number, not 'hot'"),
        (lambda talk: talk.generate(5, seed=1.5), "seed is a whole number, not 1.5"),
        (lambda talk: talk.generate(5, stop=5), "stop is a text, or several, not 5"),
        (lambda talk: talk.say(5), "a message is text, not 5"),
    ],
)
def test_what_is_no_number_is_refused_by_name(
    llama: Callable[..., Any], begin: Callable[[Any], object], told: str
) -> None:
    talk = session("s1", llama(), template=False)

    with pytest.raises(SessionError, match=told):
        begin(talk)


def test_what_no_session_can_be_on_is_told(llama: Callable[..., Any], model: Path) -> None:
    with pytest.raises(SessionError, match="the name of a session is text, not 5"):
        session(5, llama())  # type: ignore[arg-type]
    with RawContext.open(model, n_ctx=64) as context, pytest.raises(SessionError, match="not a RawContext"):
        session("s1", context)


def test_a_closed_llama_is_told_and_not_asked(model: Path) -> None:
    program = (
        "import sys, llama_cpp\n"
        "from morphogen.consumers.kv import session\n"
        "llm = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False)\n"
        "talk = session('s1', llm, events=False)\n"
        "talk.say('Hello')\n"
        "pieces = talk.generate(5)\n"
        "next(pieces)\n"
        "llm.close()\n"
        "def told(work):\n"
        "    try:\n"
        "        print('done', work())\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
        "told(lambda: session('s2', llm, events=False))\n"
        "told(lambda: list(pieces))\n"
        "told(talk.load_continuity)\n"
        "told(talk.save_continuity)\n"
        "talk.cancel()\n"
        "told(lambda: talk.say('More'))\n"
        "told(talk.generate)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(model)], capture_output=True, check=False, timeout=60, text=True
    )

    assert ended.returncode == 0, ended.stderr
    first, *others = ended.stdout.splitlines()
    assert first == "KvError this Llama is closed"
    assert len(others) == 5
    assert all(line.startswith("SessionError the Llama of this session is closed: open it again") for line in others)


def test_two_sessions_share_a_model_whose_window_forgets(llama: Callable[..., Any], tmp_path: Path) -> None:
    window = write_llama(tmp_path / "swa.gguf", SWA)

    def make(**options: Any) -> Any:
        return llama(window, n_ubatch=64, n_ctx=2048, **options)

    alone = session("alone", make(swa_full=True), every=None)
    alone.say(STORY * 2)
    first = alone.reply(40)
    alone.say("And then?")
    second = alone.reply(40)

    shared = make(swa_full=False)
    one, other = session("one", shared, every=None), session("other", shared, every=None)
    one.say(STORY * 2)
    assert one.reply(40) == first
    other.say(STORY * 2 + "Something else altogether. " * 12)
    other.reply(40)
    one.say("And then?")
    assert one.reply(40) == second
    other.close()


def test_a_session_that_two_processes_fetch_at_once_is_one_of_them(
    llama: Callable[..., Any], settings: Settings, tmp_path: Path
) -> None:
    class Second(Disk):
        """Lets another session begin, and speak, while this one fetches."""

        def open(self, ref: Any) -> Any:
            if not talks:
                talks.append(session("s1", llama(), home=tmp_path / "far", events=False))
                talks[0].say("I was here.")
            return super().open(ref)

    talks: list[Session] = []
    talk = session("s1", llama())
    talk.say("Hello")
    disk = Disk(tmp_path / "disk")
    saved = talk.save_continuity(disk)

    with pytest.raises(SessionBusy):
        session("s1", llama(), home=tmp_path / "far", events=False, saved=saved, transport=Second(tmp_path / "disk"))
    talks[0].say("And still am.")
    talks[0].close()

    again = session("s1", llama(), home=tmp_path / "far", events=False, saved=saved, transport=disk)
    assert [message.text for message in again.messages] == ["I was here.", "And still am."]
    assert not list(again.folder.glob(".*.part"))


def test_a_session_is_fetched_by_one_process_at_a_time(
    llama: Callable[..., Any], settings: Settings, tmp_path: Path
) -> None:
    opened: list[str] = []

    class Slow(Disk):
        def open(self, ref: Any) -> Any:
            opened.append(threading.current_thread().name)
            time.sleep(0.2)
            return super().open(ref)

    talk = session("s1", llama())
    talk.say("Hello")
    saved = talk.save_continuity(Disk(tmp_path / "disk"))
    wanted, far = Slow(tmp_path / "disk"), tmp_path / "far"
    both = [threading.Thread(target=_bring, args=(saved, wanted, far)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert len(opened) == 1  # no KV state was saved: the journal alone
    assert Journal.open(far).conversation.messages == talk.conversation.messages


def test_a_stop_ends_a_reply_before_itself_and_no_half_of_it_is_given_out(llama: Callable[..., Any]) -> None:
    free = session("free", llama(), template=False)
    free.say(STORY)
    text = free.reply(60)
    stop = text[20:23]
    cut = text[: text.index(stop)]

    talk = session("stopped", llama(), template=False)
    talk.say(STORY)
    said = "".join(talk.generate(60, stop=[stop]))

    assert said == cut == talk.messages[-1].text
    assert talk.finish == "stop"
    talk.say("On.")
    assert talk.conversation.shown == STORY + cut + "On."


def test_without_a_broker_nothing_is_recorded_and_nothing_is_started(
    llama: Callable[..., Any], settings: Settings
) -> None:
    talk = session("quiet", llama())
    talk.say("Hello")
    talk.reply(5)
    talk.save_continuity()

    assert not settings.broker_dir.exists()
    assert not settings.spool_dir.exists()


def test_where_a_broker_runs_turns_and_savings_are_in_the_log(
    llama: Callable[..., Any], settings: Settings, broker: Endpoint
) -> None:
    talk = session("heard", llama())
    talk.say("Hello")
    text = talk.reply(5, seed=3)
    talk.save_continuity()
    talk.close()
    again = session("heard", llama())
    again.load_continuity()

    with Bus.open(settings) as bus:
        end = time.monotonic() + 20
        events: list[Any] = []
        while not any(isinstance(event, SessionLoaded) for event in events) and time.monotonic() < end:
            events = [one.event for one in bus.events(family="session", run="session-heard")]
            time.sleep(0.05)
    kinds = [type(event) for event in events]
    assert kinds.count(SessionTurn) == 2
    said = next(event for event in events if isinstance(event, SessionTurn) and event.role == "assistant")
    assert (said.text, said.finish, said.tokens, said.seed) == (text, "length", 5, 3)
    saved = next(event for event in events if isinstance(event, SessionSaved))
    assert saved.ref is not None
    loaded = next(event for event in events if isinstance(event, SessionLoaded))
    assert loaded.restored == saved.tokens - 1


def test_a_session_goes_on_from_another_home_by_what_its_saving_said(
    llama: Callable[..., Any], settings: Settings, broker: Endpoint, tmp_path: Path
) -> None:
    expected = whole(llama, SAMPLED)
    talk = session("s1", llama())
    talk.say(STORY)
    for _, _ in zip(range(40), talk.generate(100, **SAMPLED), strict=False):
        pass
    with Bus.open(settings) as bus:
        blobs = BlobTransport(bus.conn, bus.run, tmp_path / "blobs")
        saved = talk.save_continuity(blobs)
        talk.close()

        with pytest.raises(SessionError, match="lies in transport blobs"):
            session("s1", llama(), home=tmp_path / "far", events=False, saved=saved)
        far = session("s1", llama(), home=tmp_path / "far", events=False, saved=saved, transport=blobs)
        loaded = far.load_continuity()
        "".join(far.resume())

    assert saved.ref is not None
    assert saved.ref.transport == saved.journal.transport == "blobs"
    assert loaded.restored > 100
    assert far.messages == expected.messages
    assert far.tokens == expected.tokens
