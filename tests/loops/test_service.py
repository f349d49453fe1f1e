"""Service loops: each event is handled once, whatever is killed when."""

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.emit import publish_once, writer_of
from morphogen.producers.loops import runner
from morphogen.producers.loops import state as fold
from morphogen.producers.loops.errors import Fenced, Interrupted, RunExists
from morphogen.producers.loops.journal import Journal, read_history
from morphogen.producers.loops.live import Live
from morphogen.producers.loops.runner import Options
from morphogen.producers.loops.state import encoded
from morphogen.schemas import (
    LogLine,
    LoopHandled,
    LoopRecorded,
    LoopStarted,
    Record,
    Signal,
    StepStarted,
    encode_frame,
    token,
)

from .conftest import Zygote

PROGRAM = """
system S {
  model { state seen: int = 0 }
  service_loop Counts {
    on request(id, words) {
      seen = seen + 1
      tool.run { cmd: "echo {{id}} >> effects.txt" shell: true on_interrupt: check check: "grep -qx {{id}} effects.txt" }
      if words == "stop" { return }
      tool.write { path: "last.txt" content: "{{id}} {{seen}}" }
    }
    on log.line(line) { tool.write { path: "lines.txt" content: "{{line.message}} of {{line.run}}\\n" mode: append } }
  }
}
"""


def signal(bus: Bus, number: int, words: str = "go") -> None:
    bus.emit(Signal(name="request", values={"id": number, "words": words}), run="client", msg_id=f"signal-{number}")


def serve(bus: Bus, path: Path, workspace: Path, until: Callable[[], bool], *, resume: bool = False) -> None:
    """Run the service until a condition holds, then stop it as Ctrl-C does."""
    stop = threading.Event()
    errors: list[BaseException] = []
    at_rest: list[bool] = []

    def work() -> None:
        options = Options(live=True, workspace=workspace, stop=stop)
        try:
            if resume:
                runner.resume(bus, "service", options=options)
            else:
                runner.start(bus, path, "Counts", run="service", options=options)
        except Interrupted as error:
            at_rest.append(error.at_rest)
        except BaseException as error:  # noqa: BLE001  told by the test's own thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < end and not until():
        time.sleep(0.02)
    met = until()
    stop.set()
    thread.join(10)
    assert not errors, errors
    assert met
    assert at_rest == [True]


def handled(bus: Bus) -> int:
    try:
        return read_history(bus, "service").state.handled
    except Exception:  # noqa: BLE001  it has not begun
        return 0


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_handlers_see_events_of_their_kind_from_the_service_on(
    bus: Bus, write: Callable[[str], Path], workspace: Path
) -> None:
    path = write(PROGRAM)
    signal(bus, 1)  # before the service began: not its business
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            signal(bus, 2)
            signal(bus, 3, "stop")
            bus.emit(Signal(name="other", values={"id": 9}), run="client", msg_id="other")
            bus.emit(LogLine(message="hello"), run="train", msg_id="line")
        return text(workspace / "lines.txt") != ""

    serve(bus, path, workspace, until)

    state = read_history(bus, "service").state
    assert text(workspace / "effects.txt").split() == ["2", "3"]
    assert text(workspace / "last.txt") == "2 1"
    assert text(workspace / "lines.txt") == "hello of train\n"
    assert state.variables == {"seen": 2}
    assert state.outcomes == {}  # what is handled is forgotten but for what it left
    serve(bus, path, workspace, lambda: True, resume=True)
    assert text(workspace / "effects.txt").split() == ["2", "3"]


def test_replayed_events_are_never_acted_on(bus: Bus, write: Callable[[str], Path], workspace: Path) -> None:
    path = write(PROGRAM)
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            _replay(bus, 5)
            signal(bus, 6)
        return "6" in text(workspace / "effects.txt")

    serve(bus, path, workspace, until)

    assert text(workspace / "effects.txt").split() == ["6"]


def test_an_event_that_the_log_holds_twice_is_handled_once(
    bus: Bus, write: Callable[[str], Path], workspace: Path
) -> None:
    path = write(PROGRAM)
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            signal(bus, 1)
            _again(bus, 1)
            signal(bus, 2)
        return "2" in text(workspace / "last.txt")

    serve(bus, path, workspace, until)
    _again(bus, 2)
    signal(bus, 3)
    serve(bus, path, workspace, lambda: "3" in text(workspace / "last.txt"), resume=True)

    assert text(workspace / "effects.txt").split() == ["1", "2", "3"]
    assert read_history(bus, "service").state.variables == {"seen": 3}


def test_an_event_that_was_forgotten_comes_with_the_keys_of_its_first_time(
    bus: Bus, write: Callable[[str], Path], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "_REMEMBERED", 1)
    path = write('system S { service_loop Counts { on request(id) { tool.write { path: "x" content: "{{id}}" } } } }')
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            signal(bus, 1)
            signal(bus, 2)
            _again(bus, 1)
        return handled(bus) == 4

    serve(bus, path, workspace, until)

    steps = [seen.event for seen in bus.events(run="service", family="loop") if isinstance(seen.event, StepStarted)]
    first, second, again = steps
    assert first.key == again.key != second.key
    assert len({one.path for one in steps}) == 3


def _again(bus: Bus, number: int) -> None:
    """Store a signal once more, as `emit` does where the broker has forgotten its id."""
    event = Signal(name="request", values={"id": number, "words": "go"})
    record = Record(1, event.type, event.version, None, time.time_ns(), msgspec.Raw(event.encode()))
    writer = writer_of(f"signal-{number}")
    data = encode_frame([record], run="client", attempt=0, rank=0, writer=writer, family="signal")
    bus.run(publish_once(bus.conn, f"morphogen.log.{token('client')}.signal.0-0", data, msg_id=f"again-{number}"))


def _lines(path: Path, number: int) -> bool:
    return len(text(path).split()) >= number


def _replay(bus: Bus, number: int) -> None:
    event = Signal(name="request", values={"id": number, "words": ""})
    record = Record(1, event.type, event.version, None, time.time_ns(), msgspec.Raw(event.encode()))
    data = encode_frame([record], run="client", attempt=0, rank=0, writer="f" * 16, family="signal", replay="again")
    bus.run(publish_once(bus.conn, f"morphogen.log.{token('client')}.signal.0-0", data, msg_id="replayed"))


def test_each_event_is_handled_once_across_kills(
    zygote: Zygote, bus: Bus, write: Callable[[str], Path], workspace: Path
) -> None:
    path = write(PROGRAM)
    assert zygote.run("service", workspace, path, name="Counts", kill_when=lambda: handled(bus) == 1)
    for number in range(1, 41):
        signal(bus, number)
    dice = random.Random(3)
    effects = workspace / "effects.txt"
    while len(text(effects).split()) < 40:
        wanted = min(40, len(text(effects).split()) + dice.randint(2, 9))
        zygote.run("service", workspace, kill_when=partial(_lines, effects, wanted), kill_after=dice.uniform(0, 0.004))
    zygote.run("service", workspace, kill_when=lambda: handled(bus) == 41)

    assert text(workspace / "effects.txt").split() == [str(number) for number in range(1, 41)]
    assert read_history(bus, "service").state.variables["seen"] == 40
    assert text(workspace / "last.txt") == "40 40"


@pytest.mark.parametrize("failing", ["false", "no-such-program"])
def test_a_handling_that_fails_is_told_and_the_service_goes_on(
    bus: Bus, write: Callable[[str], Path], workspace: Path, failing: str
) -> None:
    program = PROGRAM.replace(
        'tool.write { path: "last.txt"',
        f'if id == 2 {{ tool.run {{ cmd: "{failing}" }} }} tool.write {{ path: "last.txt"',
    )
    path = write(program)
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            signal(bus, 2)
            signal(bus, 3)
        return "3" in text(workspace / "last.txt")

    serve(bus, path, workspace, until)

    told: list[Any] = [
        seen.event for seen in bus.events(run="service", family="loop") if seen.record.type == "loop.handled"
    ]
    assert [one.ok for one in told] == [True, False, True]
    assert failing in told[1].error


def test_an_event_that_no_tool_takes_ends_its_own_handling_alone(
    bus: Bus, write: Callable[[str], Path], workspace: Path
) -> None:
    path = write("""
system S { service_loop Counts { on request(id, env) {
  tool.run { cmd: "true" env: env on_failure: continue } tool.write { path: "{{id}}.txt" content: "x" } } } }
""")
    bad = [{"id": "L" * 300}, {"id": "../up"}, {"id": "nul", "env": {"A": "x\0y"}}]
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            for number, values in enumerate([*bad, {"id": "last"}]):
                values = {"env": {}, **values}
                bus.emit(Signal(name="request", values=values), run="client", msg_id=f"bad-{number}")
        return (workspace / "last.txt").exists() and handled(bus) == 5

    serve(bus, path, workspace, until)

    told: list[Any] = [
        seen.event for seen in bus.events(run="service", family="loop") if seen.record.type == "loop.handled"
    ]
    assert [one.ok for one in told] == [True, False, False, True, True]


def test_what_was_trimmed_while_a_service_stood_still_is_handled_when_it_goes_on(
    bus: Bus, write: Callable[[str], Path], workspace: Path, trimmed: Callable[[Bus], None]
) -> None:
    path = write(PROGRAM)
    serve(bus, path, workspace, lambda: handled(bus) >= 1)
    signal(bus, 1)
    trimmed(bus)
    signal(bus, 2)

    serve(bus, path, workspace, lambda: handled(bus) >= 3, resume=True)

    assert text(workspace / "effects.txt").split() == ["1", "2"]


def test_a_service_that_was_idle_while_all_it_wrote_was_trimmed_goes_on(
    bus: Bus, write: Callable[[str], Path], workspace: Path, trimmed: Callable[[Bus], None]
) -> None:
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            trimmed(bus)
            signal(bus, 1)
        return handled(bus) == 2

    serve(bus, write(PROGRAM), workspace, until)

    assert text(workspace / "effects.txt").split() == ["1"]


def test_a_process_that_was_overtaken_before_a_trim_is_still_fenced_behind_it(
    bus: Bus, trimmed: Callable[[Bus], None]
) -> None:
    began = Journal.begin(bus, "r", LoopStarted(loop="L", kind="task", program="p.mk", sha256="0" * 64))
    trimmed(bus)
    began.commit(LoopHandled(seq=1, idx=-1, event_id="", handler="", path="a"))
    other = Journal.lead(bus, read_history(bus, "r"))
    other.commit(LoopHandled(seq=2, idx=-1, event_id="", handler="", path="b"))
    trimmed(bus)

    with pytest.raises(Fenced):
        began.commit(LoopHandled(seq=3, idx=-1, event_id="", handler="", path="c"))
    other.commit(LoopHandled(seq=4, idx=-1, event_id="", handler="", path="d"))
    assert read_history(bus, "r").state.handled == 3
    trimmed(bus)
    with pytest.raises(RunExists):
        Journal.begin(bus, "r", LoopStarted(loop="L", kind="task", program="p.mk", sha256="0" * 64))


def test_copies_that_were_trimmed_are_not_sent_again(bus: Bus, trimmed: Callable[[Bus], None]) -> None:
    began = Journal.begin(bus, "r", LoopStarted(loop="L", kind="task", program="p.mk", sha256="0" * 64))
    for message in ("one", "two"):
        began.commit(LoopRecorded(path="a", events=began.carried(LogLine(message=message))))
        assert began.close()
    trimmed(bus)

    again = Journal.lead(bus, read_history(bus, "r"))
    again.commit(LoopRecorded(path="b", events=again.carried(LogLine(message="three"))))
    assert again.close()

    lines = [seen.event for seen in bus.past(run="r", family="log")]
    assert [line.message for line in lines if isinstance(line, LogLine)] == ["one", "two", "three"]


def test_a_service_goes_on_from_its_checkpoint_and_not_from_its_beginning(
    bus: Bus, write: Callable[[str], Path], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_of = """
system S {
  model { state seen: int = 0 }
  trace_schema { variant T { case Seen { n: int } } }
  service_loop Counts { on request(id) { seen = seen + 1 emit Seen { n: seen } } }
}
"""
    forget = Live.forget
    monkeypatch.setattr(Live, "forget", lambda self: forget(self, 10))
    path = write(text_of)
    begun = threading.Event()

    def until() -> bool:
        if handled(bus) >= 1 and not begun.is_set():
            begun.set()
            for number in range(25):
                signal(bus, number)
        return handled(bus) == 26

    serve(bus, path, workspace, until)

    path.unlink()  # the program comes along with the checkpoint
    full = read_history(bus, "service", see=lambda frame: None)
    short = read_history(bus, "service")
    assert encoded(short.state) == encoded(full.state)
    assert short.counter == full.counter
    assert len(short.carried) < len(full.carried) == 25 + 1
    signal(bus, 99)
    serve(bus, path, workspace, lambda: handled(bus) == 27, resume=True)
    numbers = [seen.record.n for seen in bus.events(run="service", family="trace")]
    assert numbers == list(range(1, 27))
