"""The verbs of `morphogen kv`, as a person types them: against real files, a real model and real workers."""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint as Broker
from morphogen.cli.app import run
from morphogen.cli.kv_send import command
from morphogen.cli.tables import SHOWN
from morphogen.consumers.kv_index import Holder, IndexServer, longest_prefix
from morphogen.consumers.kv_index.logbook import Logbook
from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.consumers.projections.sql.query import query
from morphogen.schemas.kv import (
    BLOCK,
    KvEvicted,
    KvExported,
    KvRef,
    KvReleased,
    SessionSaved,
    SessionTurn,
    block_hashes,
    pack_hashes,
)

from ..kv import models
from ..kv_index.publishers import until
from .workers import Workers, workers_of

ROOT = "e" * 64
Said = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models.needed()
    return models.write_llama(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def bus(settings: Settings, broker: Broker) -> Iterator[Bus]:
    with Bus.open(settings) as found:
        yield found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command line that must succeed and return what it printed."""

    def call(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        found = run(arguments)
        out, err = capsys.readouterr()
        assert found == code, (out, err)
        if code:
            assert out == ""
            assert err.count("\n") == 1, err
            assert "Traceback" not in err
            return err
        return out

    return call


def exported(state: str, session: str, tokens: int = 2 * BLOCK, **more: Any) -> KvExported:
    text = list(range(tokens))
    ref = KvRef(transport="disk", place=f"/kv/{state}", size=2_500_000)
    values: dict[str, Any] = {"worker": "a", "tier": "disk", **more}
    return KvExported(
        state=state, tokens=tokens, size=2_500_000, transport="disk", ref=ref, root=ROOT, session=session, model="tiny",
        blocks=pack_hashes(block_hashes(text, ROOT)), **values,
    )  # fmt: skip


def told(bus: Bus, *events: Any) -> None:
    bus.run(Logbook(bus.conn, "test").write([list(events)]))


def test_list_shows_what_is_held_and_all_of_it_what_was(bus: Bus, said: Said) -> None:
    assert said("kv", "list").startswith("no KV states are held beside what workers have at hand")
    told(
        bus,
        exported("state-1", "chat"),
        exported("state-2", "other", worker="b", tier="memory"),
        exported("state-3", "gone"),
        KvReleased(state="state-3", worker="a", tier="disk", reason="dropped"),
    )

    shown = said("kv", "list")

    assert [line.replace("│", " ").split()[:4] for line in shown.splitlines() if line.strip().startswith("state-")] == [
        ["state-2", "other", "b", "memory"],
        ["state-1", "chat", "a", "disk"],
    ]
    assert "2.5 MB" in shown
    assert "state-3" in said("kv", "list", "--all")
    assert "released: dropped" in said("kv", "list", "--all")
    assert "state-2" not in said("kv", "list", "--session", "chat")
    rows = [json.loads(line) for line in said("kv", "list", "--worker", "b", "--json").splitlines()]
    assert [(row["state"], row["tokens"], row["held"]) for row in rows] == [("state-2", 2 * BLOCK, True)]


def test_list_shows_the_newest_of_very_many_and_tells_how_many_there_are(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    told(bus, *(exported(f"state-{number:04}", "chat") for number in range(SHOWN + 5)))
    capsys.readouterr()

    assert run(["kv", "list"]) == 0

    out, err = capsys.readouterr()
    shown = [line.split()[0] for line in out.splitlines() if line.strip().startswith("state-")]
    assert shown == [f"state-{number:04}" for number in range(SHOWN + 4, 4, -1)]
    assert err == "1,005 rows, the first 1,000 shown (--json shows all)\n"
    assert run(["kv", "list", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == SHOWN + 5


def test_list_counts_what_other_engines_hold(bus: Bus, said: Said) -> None:
    from ..kv_index.test_service import said as says

    told(bus, *says(3))

    assert said("kv", "list") == "fleet w: 3 blocks in device\n"


def test_show_tells_of_a_state_where_it_lies_and_what_became_of_it(bus: Bus, said: Said) -> None:
    there = KvRef(transport="shared_memory", place="seg-9", size=5)
    told(
        bus,
        exported("state-1", "chat", worker="a", tier="memory"),
        KvEvicted(state="state-1", worker="a", from_tier="memory", to_tier="disk", size=5, reason="budget", ref=there),
        SessionTurn(session="chat", turn=1, role="user", tokens=4),
    )

    for key in ("state-1", "stat", "chat"):
        shown = said("kv", "show", key)
        assert "seg-9" in shown
        assert "evicted: budget" in shown
        assert "exported" in shown
    document = json.loads(said("kv", "show", "chat", "--json"))
    assert (document["session"], document["turns"], document["state"], document["blocks"]) == ("chat", 1, "state-1", 2)


def test_show_tells_of_a_session_by_the_state_that_it_was_saved_with_last_among_all_of_its_own(
    bus: Bus, said: Said
) -> None:
    names = [f"state-{number:02}" for number in range(12)]
    at = KvRef(transport="disk", place="/kv/journal", size=9)
    saved = SessionSaved(session="state", revision=1, turns=3, tokens=99, journal=at, state="state-07", worker="a")
    told(
        bus,
        *(exported(name, "state", tokens=BLOCK * (1 + number)) for number, name in enumerate(names)),
        exported("state-of-others", "other"),
        KvReleased(state="state-07", worker="a", tier="disk", reason="dropped"),
        saved,
    )

    document = json.loads(said("kv", "show", "state", "--json"))

    assert (document["session"], document["turns"]) == ("state", 3)
    assert (document["state"], document["tokens"], document["blocks"]) == ("state-07", BLOCK * 8, 8)
    assert sorted(place["state"] for place in document["places"]) == names
    assert len(document["history"]) == len(names)

    told(bus, msgspec.structs.replace(saved, state="state-12"))
    document = json.loads(said("kv", "show", "state", "--json"))
    assert (document["state"], document["tokens"], len(document["places"])) == ("state-12", 99, len(names))


def test_show_tells_of_a_session_that_was_never_saved_by_its_newest_state(bus: Bus, said: Said) -> None:
    told(bus, exported("state-1", "chat"))
    told(bus, exported("state-2", "chat", tokens=3 * BLOCK))
    document = json.loads(said("kv", "show", "chat", "--json"))
    assert (document["state"], document["tokens"], len(document["places"])) == ("state-2", 3 * BLOCK, 2)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Bogota"])
def test_the_history_is_told_in_local_time(bus: Bus, said: Said, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    told(bus, exported("state-1", "chat"))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (told_of,) = json.loads(said("kv", "show", "chat", "--json"))["history"]
        assert 0 <= (time.time_ns() - (parse_as_of(told_of["time"])[1] or 0)) / 1e9 < 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_show_names_what_it_does_not_know_and_what_is_not_enough(bus: Bus, said: Said) -> None:
    assert "no state, session or file 'nothing'" in said("kv", "show", "nothing", code=1)
    told(bus, exported("state-1", "a"), exported("state-2", "b"))
    assert "write more of it" in said("kv", "show", "state", code=1)


def test_a_prompt_goes_into_a_file_and_out_of_it_and_the_text_goes_on_as_if_it_had_been_read(
    model: Path, tmp_path: Path, settings: Settings, said: Said
) -> None:
    out, plain = tmp_path / "state.kv", tmp_path / "plain.kv"
    text = "the cat and the hat went in to the den " * 6
    made = said("kv", "export", str(out), "--model", str(model), "--prompt", text, "--threads", "1")
    assert made.startswith(f"{out}: ")

    went_on = said("kv", "import", str(out), "--model", str(model), "--generate", "12", "--threads", "1")

    from morphogen.kernels.kv import RawContext, open_kv

    tokens = open_kv(out).tokens.tolist()
    with RawContext.open(model, n_ctx=len(tokens) + 80, n_threads=1) as context:
        context.decode(0, tokens)
        wanted = context.greedy(0, 12)
    from morphogen.cli.kv_file import _speaker

    with RawContext.open(model, n_ctx=64, n_threads=1) as context:
        speaker = _speaker(context, settings.home / "kv")
        assert went_on == b"".join(speaker.piece(one) for one in wanted).decode("utf-8", "replace") + "\n"

    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(tokens))
    said("kv", "export", str(plain), "--model", str(model), "--tokens", str(ids), "--threads", "1")
    assert open_kv(plain).tokens.tolist() == tokens


def test_a_prompt_may_come_from_a_file_and_quantized_caches_find_their_way_back(
    model: Path, tmp_path: Path, settings: Settings, said: Said
) -> None:
    out, prompt = tmp_path / "state.kv", tmp_path / "prompt.txt"
    prompt.write_text("hello there and then")
    said(
        "kv", "export", str(out), "--model", str(model), "--prompt", f"@{prompt}", "--kv-type", "q8_0", "--threads", "1"
    )

    assert said("kv", "import", str(out), "--model", str(model), "--threads", "1") == ""
    document = json.loads(said("kv", "show", str(out), "--json"))
    assert document["verified"]
    assert (document["fingerprint"]["type_k"], document["fingerprint"]["type_v"]) == ("q8_0", "q8_0")


def test_show_reads_a_file_and_a_changed_one_is_refused_in_one_line(
    model: Path, tmp_path: Path, settings: Settings, said: Said
) -> None:
    out = tmp_path / "state.kv"
    said("kv", "export", str(out), "--model", str(model), "--prompt", "hello there", "--threads", "1")
    shown = said("kv", "show", str(out))
    assert "verified         True" in shown
    assert "llama.cpp" in shown

    data = bytearray(out.read_bytes())
    for at, what in ((-20, "payload"), (70, "header")):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        out.write_bytes(changed)
        assert what in said("kv", "show", str(out), code=1)
        assert what in said("kv", "import", str(out), "--model", str(model), code=1)
    out.write_bytes(data[:1000])
    assert "cut off" in said("kv", "show", str(out), code=1)
    out.write_bytes(b"GGUF something else entirely, and long enough to be looked at: " * 4)
    assert "no KV state" in said("kv", "show", str(out), code=1)


def test_another_model_is_refused_with_the_field_expected_and_actual(
    model: Path, tmp_path: Path, settings: Settings, said: Said
) -> None:
    other = models.write_llama(tmp_path / "other.gguf", seed=8)
    out = tmp_path / "state.kv"
    said("kv", "export", str(out), "--model", str(model), "--prompt", "hello there", "--threads", "1")

    refused = said("kv", "import", str(out), "--model", str(other), code=1)

    assert "this state needs weights" in refused
    assert "the context has" in refused


def test_a_state_made_with_an_adapter_needs_it_again(
    model: Path, tmp_path: Path, settings: Settings, said: Said
) -> None:
    lora, out = models.write_lora(tmp_path / "lora.gguf"), tmp_path / "state.kv"
    said(
        "kv", "export", str(out), "--model", str(model), "--prompt", "hello", "--lora", f"{lora}=0.5", "--threads", "1"
    )

    assert "loras.0.sha256" in said("kv", "import", str(out), "--model", str(model), code=1)
    assert "loras.0.scale" in said("kv", "import", str(out), "--model", str(model), "--lora", str(lora), code=1)
    said("kv", "import", str(out), "--model", str(model), "--lora", f"{lora}=0.5", "--threads", "1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("import", "nowhere.kv", "--model", "m.gguf"), "no file nowhere.kv"),
        (("export", "x.kv", "--model", "nowhere.gguf", "--prompt", "a"), "no GGUF file at nowhere.gguf"),
        (("export", "x.kv", "--model", "m.gguf", "--tokens", "nowhere.txt"), "nowhere.txt"),
        (("export", "x.kv", "--model", "m.gguf", "--prompt", "a", "--lora", "nowhere=2"), "no adapter file at nowhere"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    arguments: tuple[str, ...],
    says: str,
    settings: Settings,
    said: Said,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models.needed()
    monkeypatch.chdir(tmp_path)

    assert says in said("kv", *arguments, code=1)


@pytest.mark.parametrize("option", [("--tokens", "{}"), ("--prompt", "@{}")], ids=["tokens", "prompt"])
def test_a_file_that_is_no_text_is_told_in_one_line(
    option: tuple[str, str], said: Said, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "binary"
    path.write_bytes(bytes(range(256)))

    told = said("kv", "export", "x.kv", "--model", "m.gguf", option[0], option[1].format(path), code=1)

    assert told == f"morphogen: {path} is not UTF-8 text (byte 128)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("say", "s", "-", "--to", "a"),
        ("say", "s", "a\udcff", "--to", "a"),
        ("say", "s\udcff", "a", "--to", "a"),
        ("export", "x.kv", "--model", "m.gguf", "--prompt", "a\udcff"),
        ("export", "x\udcff.kv", "--worker", "a", "--session", "s"),
        ("handoff", "s\udcff", "--from", "a", "--to", "b"),
        ("drop", "--from", "a", "--session", "s\udcff"),
    ],
    ids=ascii,
)
def test_bytes_that_are_no_text_are_told_in_one_line(
    arguments: tuple[str, ...], said: Said, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))

    assert "is not UTF-8 text" in said("kv", *arguments, code=1)


def test_a_file_whose_name_is_no_text_is_written_and_read(
    said: Said, settings: Settings, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.kv")

    assert "a\ufffd.kv: 2 tokens" in said("kv", "export", str(path), "--model", str(model), "--prompt", "a")
    assert said("kv", "import", str(path), "--model", str(model), "--generate", "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "x.kv"),
        ("export", "x.kv", "--model", "m", "--worker", "w", "--session", "s"),
        ("export", "x.kv", "--worker", "w"),
        ("export", "x.kv", "--model", "m"),
        ("drop", "--from", "w"),
        ("say", "s", "--to", "w"),
        ("say", "s", "hello", "--to", "w", "--resume"),
        ("drop", "--from", "w", "--session", "s", "--state", "t"),
        ("say", "s", "hello", "--to", "w", "--temperature", "nan"),
        ("handoff", "s", "--from", "w", "--to", "v", "--timeout", "nan"),
        ("export", "x.kv", "--worker", "w", "--session", "s", "--timeout", "nan"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_is_wrong_use(arguments: tuple[str, ...], settings: Settings) -> None:
    assert run(["kv", *arguments]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--from", "tcp://*:5557"), 1, "write tcp://127.0.0.1:5557"),
        (("--from", "tcp://127.0.0.1:1", "--dialect", "latin"), 1, "no dialect 'latin'"),
        (("--from", "tcp://127.0.0.1:1", "--worker", "a", "--worker", "b"), 2, "as many --replay and --worker"),
        ((), 2, "--from"),
    ],
    ids=str,
)
def test_serve_kv_events_names_what_it_cannot_listen_to(
    arguments: tuple[str, ...], code: int, says: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "kv-events", "--engine", "e", *arguments]) == code
    assert says in capsys.readouterr().err


@pytest.fixture
def workers(bus: Bus, model: Path, tmp_path: Path) -> Iterator[Workers]:
    with workers_of(bus, tmp_path) as make:
        yield make(model)


def test_a_session_is_exported_handed_over_and_dropped_by_command(
    workers: Workers, said: Said, tmp_path: Path, settings: Settings
) -> None:
    from morphogen.kernels.kv import open_kv

    assert "no worker 'a' answers" in said("kv", "handoff", "chat", "--from", "a", "--to", "b", code=1)
    assert "no worker 'a' answers" in said("kv", "drop", "--from", "a", "--session", "chat", code=1)
    nobody = said("kv", "say", "talk", "hello", "--to", "a", code=1)
    assert "no worker 'a' answers: `morphogen serve llama --model FILE --name a` starts one" in nobody
    workers.start("a", "b")
    reply = said("kv", "say", "talk", "hello", "--to", "a", "--max-tokens", "5", "--temperature", "0.5", "--seed", "3")
    assert reply.strip()
    assert (
        said("kv", "say", "again", "hello", "--to", "a", "--max-tokens", "5", "--temperature", "0.5", "--seed", "3")
        == reply
    )
    assert said("kv", "say", "talk", "--to", "a", "--resume") == reply
    for name in ("talk", "again"):
        said("kv", "drop", "--from", "a", "--session", name)
    workers.say("a", "chat", "the cat and the hat went in to the den " * 8)
    server = IndexServer(workers.bus.conn, settings)
    workers.bus.start(server.run())

    out = tmp_path / "chat.kv"
    assert said("kv", "export", str(out), "--worker", "a", "--session", "chat").startswith(f"{out}: state ")
    document = json.loads(said("kv", "show", str(out), "--json"))
    assert document["verified"]
    tokens = open_kv(out).tokens
    whole = len(tokens) // BLOCK
    assert len(server.index) == 0  # a file is the user's
    stored = command(settings, "a", "kv.export", {"session": "chat"}, timeout=30)
    until(lambda: len(server.index) == whole)
    assert stored["tokens"] == len(tokens)
    (held,) = workers.bus.run(longest_prefix(workers.bus.conn, tokens, root=document["root"])).holders
    assert (held.holder.worker, held.holder.tier, held.blocks) == ("a", "disk", whole)
    assert said("kv", "show", held.states[0]).startswith("state ")
    went = said("kv", "handoff", "chat", "--from", "a", "--to", "b")
    assert went.startswith("chat went from a to b, by shared_memory")
    assert workers.sessions("a") == []
    assert workers.sessions("b") == ["chat"]
    until(lambda: Holder(worker="b", tier="device") in server.index.holders)
    match = workers.bus.run(longest_prefix(workers.bus.conn, tokens))
    assert (match.holders[0].holder, match.blocks) == (Holder(worker="b", tier="device"), whole)
    ((status,),) = query("SELECT status FROM kv_handoffs", settings=settings, wait=True).rows()
    assert status == "done"
    assert "chat" in said("kv", "list", "--session", "chat", "--all")
    assert "session 'chat' went to worker b" in said("kv", "handoff", "chat", "--from", "a", "--to", "b", code=1)
    assert said("kv", "handoff", "chat", "--from", "b", "--to", "nobody", "--timeout", "20", code=1)
    assert workers.sessions("b") == ["chat"]
    assert said("kv", "drop", "--from", "b", "--session", "chat") == "b dropped session chat\n"
    assert workers.sessions("b") == []
    assert "stores no state 'x'" in said("kv", "drop", "--from", "b", "--state", "x", code=1)


def test_a_worker_that_does_not_end_a_command_is_not_waited_for_for_ever(bus: Bus, said: Said) -> None:
    import asyncio

    from morphogen.bus.requests import respond
    from morphogen.schemas.kv import worker_subject, worker_target

    async def here(payload: bytes) -> bytes:
        return b""

    async def never(command: Any) -> None:
        await asyncio.sleep(60)

    bus.run(respond(bus.conn, worker_subject("slow", "info"), here))
    assert "did not take it" in said("kv", "drop", "--from", "slow", "--session", "s", "--timeout", "1", code=1)
    with bus.serve(worker_target("slow"), {"kv.handoff": never}):
        failed = said("kv", "handoff", "s", "--from", "slow", "--to", "b", "--timeout", "2", code=1)
    assert "did not end it" in failed
