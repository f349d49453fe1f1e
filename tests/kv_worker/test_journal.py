"""A journal says after any kill what was said before it; a conversation is the fold of its records."""

import contextlib
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv import Sampling, SessionBusy, SessionError
from morphogen.consumers.kv.conversation import (
    Began,
    Conversation,
    Copied,
    Ended,
    Entry,
    Got,
    Kept,
    Moved,
    Opened,
    Said,
    Stayed,
    fold,
    ids,
    state_id,
)
from morphogen.consumers.kv.desk import Desk
from morphogen.consumers.kv.errors import SessionLost
from morphogen.consumers.kv.journal import MAGIC, NAME, Journal, pack, unpack

TOKENS = st.lists(st.integers(0, 300), max_size=12)


@st.composite
def conversations(draw: st.DrawFn) -> list[Entry]:
    entries: list[Entry] = [Opened(session="s", root="r", vocab="v", batch=draw(st.integers(1, 5)))]
    count, pending = 0, False
    for _ in range(draw(st.integers(0, 15))):
        if pending:
            if draw(st.booleans()):
                entries.append(Got(t=draw(st.integers(0, 300))))
                count += 1
            else:
                entries.append(Ended(finish="stop", text="x", shown="xy"))
                pending = False
        else:
            tokens = draw(TOKENS)
            cut = draw(st.none() | st.integers(0, count))
            count = (count if cut is None else cut) + len(tokens)
            if draw(st.booleans()):
                entries.append(Said(role="user", text="a", tokens=ids(tokens), shown="a", cut=cut))
            else:
                entries.append(Began(sampling=Sampling(), limit=9, tokens=ids(tokens), shown="b", cut=cut))
                pending = True
        if count and draw(st.booleans()):
            kept = draw(st.integers(1, count))
            entries.append(Kept(state=f"k{kept}", file=f"k{kept}.kv", tokens=kept, size=1))
        if draw(st.integers(0, 9)) == 0:
            entries.append(Moved(to="b", name="s", handoff="h"))
        if draw(st.integers(0, 9)) == 0:
            entries.append(draw(st.sampled_from([Stayed(handoff="h"), Copied()])))
    return entries


@given(conversations())
def test_batches_are_all_tokens_in_order_from_every_boundary(entries: list[Entry]) -> None:
    conversation = fold(entries)
    total = len(conversation.tokens)

    for upto in range(total + 1):
        start = conversation.boundary(upto)
        assert 0 <= start <= upto
        assert conversation.boundary(start) == start
        batches = conversation.batches(start)
        assert [token for batch in batches for token in batch] == conversation.tokens[start:]
        assert all(0 < len(batch) <= conversation.batch for batch in batches)
    assert sum(span.count for span in conversation.spans) == total


@given(conversations())
def test_what_is_computed_again_from_a_boundary_has_the_shape_of_the_first_time(entries: list[Entry]) -> None:
    conversation = fold(entries)
    whole = conversation.batches(0)

    place = 0
    for index, batch in enumerate(whole):
        assert conversation.batches(place) == whole[index:]
        place += len(batch)


@given(conversations(), st.data())
def test_a_journal_cut_anywhere_reads_as_its_whole_records(entries: list[Entry], data: st.DataObject) -> None:
    written = MAGIC + b"".join(pack(entry) for entry in entries)
    cut = data.draw(st.integers(len(MAGIC), len(written)))

    conversation, whole = unpack(written[:cut])

    assert whole <= cut
    assert conversation == fold(entries[: conversation.revision])
    assert unpack(written)[0] == fold(entries)


@given(conversations(), st.data())
def test_a_flipped_bit_is_told_or_ends_the_journal_and_never_changes_what_was_said(
    entries: list[Entry], data: st.DataObject
) -> None:
    written = bytearray(MAGIC + b"".join(pack(entry) for entry in entries))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= 1 << data.draw(st.integers(0, 7))

    with contextlib.suppress(SessionError):
        conversation, _ = unpack(bytes(written))
        assert conversation == fold(entries[: conversation.revision])


@given(st.binary(max_size=300))
def test_bytes_that_are_no_journal_raise_nothing_but_what_says_so(data: bytes) -> None:
    for attempt in (data, MAGIC + data, MAGIC + struct.pack("<II", len(data), zlib.crc32(data)) + data):
        with contextlib.suppress(SessionError):
            conversation, whole = unpack(attempt)
            assert whole <= len(attempt)
            assert conversation.revision >= 0


@pytest.mark.parametrize(
    "entries",
    [
        [Said(role="u", text="", tokens=b"", shown="")],
        [Opened(session="s", root="r"), Opened(session="s", root="r")],
        [Opened(session="s", root="r"), Got(t=1)],
        [Opened(session="s", root="r"), Ended(finish="stop", text="")],
        [Opened(session="s", root="r", batch=0)],
        [Opened(session="s", root="r"), Said(role="u", text="", tokens=b"abc", shown="")],
        [Opened(session="s", root="r"), Said(role="u", text="", tokens=b"", shown="", cut=1)],
        [Opened(session="s", root="r"), Kept(state="k", file="k.kv", tokens=1, size=1)],
        [Opened(session="s", root="r"), Kept(state="k", file="../k.kv", tokens=1, size=1)],
        [Opened(session="s", root="r"), Kept(state="k", file="journal", tokens=1, size=1)],
        [Opened(session="s", root="r"), Began(sampling=Sampling(), limit=0)],
    ],
)
def test_records_that_cannot_follow_are_refused_and_not_written(entries: list[Entry], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        fold(entries)
    journal = Journal.open(tmp_path / "s")
    if len(entries) > 1:
        journal.append(entries[0])
    size = journal.size
    with pytest.raises(ValueError, match=r"."):
        journal.append(entries[-1])
    assert (tmp_path / "s" / NAME).stat().st_size == size
    journal.close()


def test_a_journal_is_there_again_and_has_one_owner(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "s")
    journal.append(Opened(session="s", root="r"), Said(role="user", text="höi", tokens=ids([1, 2]), shown="höi"))

    with pytest.raises(SessionBusy, match=f"session s is in use by process {os.getpid()}"):
        Journal.open(tmp_path / "s")
    journal.close()
    with pytest.raises(SessionError, match="closed"):
        journal.append(Got(t=1))
    again = Journal.open(tmp_path / "s")
    assert again.conversation == journal.conversation
    assert again.conversation.messages[0].text == "höi"
    again.close()


def test_a_torn_record_is_cut_off_and_the_next_one_follows_the_last_whole_one(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "s")
    journal.append(Opened(session="s", root="r"))
    journal.append(Began(sampling=Sampling(), limit=9, tokens=ids([1])))
    journal.append(Got(t=5))
    journal.close()
    path = tmp_path / "s" / NAME
    path.write_bytes(path.read_bytes()[:-3])

    again = Journal.open(tmp_path / "s")
    again.append(Got(t=6))
    again.close()

    assert unpack(path.read_bytes())[0].tokens == [1, 6]


@pytest.mark.parametrize("where", [(os, "write"), (Conversation, "take")], ids=["written", "not-taken"])
def test_who_is_interrupted_while_a_token_is_written_goes_on_with_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    journal = Journal.open(tmp_path / "s")
    journal.append(Opened(session="s", root="r"), Began(sampling=Sampling(), limit=9))
    whole = getattr(*where)

    def interrupted(*given: Any) -> None:
        monkeypatch.undo()
        if whole is os.write:
            whole(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(*where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.append(Got(t=1))
    journal.append(Got(t=2))
    journal.close()

    again = Journal.open(tmp_path / "s")
    assert journal.conversation == again.conversation
    assert again.conversation.tokens == [1, 2]
    again.close()


def test_a_folder_without_a_session_and_a_foreign_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="there is no session in"):
        Journal.open(tmp_path / "none", create=False)
    (tmp_path / NAME).write_bytes(b"something else")
    with pytest.raises(SessionError, match="is not the journal of a session"):
        Journal.open(tmp_path)


def open_in(folder: str) -> int:
    """Count the descriptors of this process that lead into a folder: other threads open and close some of their own."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith(os.path.realpath(folder))
    return count


@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300)), max_size=30))
def test_journals_on_a_desk_say_what_others_say_and_few_are_open(most: int, said: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(most)
        journals = [Journal.open(Path(folder) / f"s{number}", desk=desk) for number in range(5)]
        for journal in journals:
            journal.append(Opened(session="s", root="r"), Began(sampling=Sampling(), limit=99))
        for number, token in said:
            journals[number].append(Got(t=token))
            assert 1 <= open_in(folder) <= most
        whole = [journal.whole() for journal in journals]
        for journal in journals:
            journal.close()

        assert open_in(folder) == 0
        for number, journal in enumerate(journals):
            assert (Path(folder) / f"s{number}" / NAME).read_bytes() == whole[number]
            wanted = [token for one, token in said if one == number]
            assert unpack(whole[number])[0].tokens == journal.conversation.tokens == wanted


@pytest.mark.parametrize("resting", [False, True])
@pytest.mark.parametrize("what", ["deleted", "folder deleted", "replaced", "written to", "cut off"])
def test_a_journal_that_was_taken_away_takes_nothing_more(tmp_path: Path, what: str, resting: bool) -> None:
    folder = tmp_path / "s"
    journal = Journal.open(folder)
    journal.append(Opened(session="s", root="r"))
    if resting:
        journal.rest()
    path = folder / NAME
    match what:
        case "deleted":
            path.unlink()
        case "folder deleted":
            shutil.rmtree(folder)
        case "replaced":
            shutil.copy(path, tmp_path / "copy")
            (tmp_path / "copy").replace(path)
        case "written to":
            path.write_bytes(path.read_bytes() * 2)
        case _:
            os.truncate(path, len(MAGIC))

    for use in (
        lambda: journal.append(Said(role="user", text="a", tokens=b"", shown="a")),
        journal.sync,
        journal.whole,
    ):
        with pytest.raises(
            SessionLost, match=r"the journal of session s was deleted, replaced or changed in .*/s: put it"
        ):
            use()

    assert journal.conversation.messages == []
    if what == "replaced":
        Journal.open(folder).close()  # which is not held by the one that refused it
    journal.close()


def test_a_journal_that_is_put_back_goes_on(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "s")
    (tmp_path / "s").rename(tmp_path / "away")
    with pytest.raises(SessionLost):
        journal.append(Opened(session="s", root="r"))
    (tmp_path / "away").rename(tmp_path / "s")

    journal.append(Opened(session="s", root="r"))

    journal.close()
    assert unpack((tmp_path / "s" / NAME).read_bytes())[0].revision == 1


def test_what_keeps_a_journal_from_being_opened_is_told_as_it_is(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "rests")
    journal.append(Opened(session="s", root="r"))
    journal.rest()
    (tmp_path / "file").write_text("")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for use in (lambda: Journal.open(tmp_path / "s"), journal.sync):
            with pytest.raises(
                SessionError, match=r"the journal in .* cannot be opened: Too many open files; raise `ulimit -n`"
            ):
                use()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(SessionError, match=r"the journal in .*/file/s cannot be opened: Not a directory"):
        Journal.open(tmp_path / "file" / "s")
    journal.sync()
    journal.close()


def test_a_journal_that_rests_is_not_opened_in_a_forked_child(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "s")
    journal.rest()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(SessionError):
            journal.append(Opened(session="s", root="r"))
            os._exit(1)
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    journal.append(Opened(session="s", root="r"))
    journal.close()


def test_the_lock_goes_with_a_killed_owner_and_every_token_it_got_is_there(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from morphogen.consumers.kv.conversation import Began, Got, Opened\n"
        "from morphogen.consumers.kv import Sampling\n"
        "from morphogen.consumers.kv.journal import Journal\n"
        "journal = Journal.open(Path(sys.argv[1]))\n"
        "journal.append(Opened(session='s', root='r'), Began(sampling=Sampling(), limit=10**6))\n"
        "for token in range(500):\n"
        "    journal.append(Got(t=token))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=False, timeout=60)
    assert ended.returncode == -9

    journal = Journal.open(tmp_path / "s")

    assert journal.conversation.tokens == list(range(500))
    journal.close()


def test_a_forked_child_neither_keeps_the_lock_nor_writes(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "s")
    journal.append(Opened(session="s", root="r"), Began(sampling=Sampling(), limit=9))
    told, tell = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal.append(Got(t=1))
        except SessionError as error:
            os.write(tell, str(error).encode())
        os.close(tell)
        os.close(release)
        os.read(hold, 1)  # lives on, while the one that has the lock ends
        os._exit(0)
    os.close(tell)
    with open(told, "rb") as said:
        text = said.read().decode()
    journal.append(Got(t=2))
    journal.close()

    again = Journal.open(tmp_path / "s")

    assert text.startswith("session s belongs to the process that this one was forked from")
    assert again.conversation.tokens == [2]
    again.close()
    os.close(release)
    os.close(hold)
    assert os.waitpid(child, 0)[1] == 0


def test_a_state_is_named_by_its_tokens_and_the_model() -> None:
    assert state_id("r", [1, 2]) == state_id("r", [1, 2])
    assert len({state_id("r", [1, 2]), state_id("r", [2, 1]), state_id("q", [1, 2])}) == 3


def test_a_copy_goes_its_own_way() -> None:
    one = fold([Opened(session="s", root="r"), Began(sampling=Sampling(), limit=3, tokens=ids([1]))])
    other = one.copy()
    other.take(Got(t=2))

    assert one.tokens == [1]
    assert one != other
    assert isinstance(one, Conversation)


@given(conversations(), st.lists(st.sampled_from(["h1", "h2"]), max_size=4))
def test_a_handoff_that_was_refused_and_those_of_a_first_one_are_not_this_sessions(
    entries: list[Entry], handoffs: list[str]
) -> None:
    moves = [Moved(to="b", name="s", handoff=one) for one in handoffs]
    before = fold([*entries, *moves])

    stayed = fold([*entries, *moves, Stayed(handoff="h1")])
    copied = fold([*entries, *moves, Copied()])

    assert (stayed.moved, copied.moved) == (None, None)
    assert stayed.handoffs == before.handoffs - {"h1"}
    assert copied.handoffs == set()
    assert stayed.tokens == copied.tokens == before.tokens
