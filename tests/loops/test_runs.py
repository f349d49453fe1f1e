"""Whole runs on a real broker: what they leave in the log, where they stop, who may go on with them."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.errors import (
    Fenced,
    Interrupted,
    LoopError,
    ProgramChanged,
    RunExists,
    UnknownRun,
    WorkspaceError,
)
from morphogen.producers.loops.journal import Journal, answer, read_history
from morphogen.producers.loops.lanes import lane_subject, writer_of
from morphogen.producers.loops.runner import Options
from morphogen.schemas import LoopAssigned, LoopResumed, Unknown

Live = Callable[..., Options]
Write = Callable[[str], Path]

SYSTEM = """
system Blocks {
  model { state best: float = 0.0 }
  trace_schema { variant TraceItem {
    case Performance { step_name: string, tflops: float }
    case Correctness { step_name: string, passed: boolean }
  } }
  knowledge {
    fact is_slow(t: TraceItem.Performance) { return t.tflops < 10.0 }
    rule "Swizzle" { when: is_slow apply: "reorder the blocks" }
    invariant Right { assert: trace.latest(Correctness).passed }
  }
  agent_loop Tune {
    step one: tool.run { cmd: ["printf", 'MORPHOGEN_TRACE {"case": "Performance", "step_name": "one", "tflops": TFLOPS}\\n'] } -> emit TraceItem.Performance
    step two {
      if is_slow(trace.latest) { best = trace.latest.tflops }
      emit TraceItem.Correctness { step_name: "two", passed: true }
      emit TraceItem.Performance { step_name: "two", tflops: best * 10 }
    }
    success: best > 3
  }
  agent_loop Wrong {
    step one { emit TraceItem.Correctness { step_name: "x", passed: false } }
    step never: tool.write { path: "never.txt" content: "no" }
  }
}
"""


def families(bus: Bus, run: str, family: str) -> list[Any]:
    return [
        {"type": seen.record.type, "cause": seen.record.cause, "n": seen.record.n, **fields(seen.event)}
        for seen in bus.events(run=run, family=family)
    ]


def fields(event: Any) -> dict[str, Any]:
    from morphogen.schemas import decode

    return event.fields() if isinstance(event, Unknown) else decode(event.encode())  # type: ignore[no-any-return]


def test_trace_items_ground_facts_fire_rules_and_appear_in_their_own_family(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    ended = runner.start(bus, write(SYSTEM.replace("TFLOPS", "3.5")), "Tune", run="t", options=live())

    state = read_history(bus, "t").state
    items = families(bus, "t", "trace")
    assert ended.status == "done"
    assert state.variables["best"] == 3.5
    assert [(item["type"], item["n"]) for item in items] == [
        ("trace.blocks.performance", 1), ("trace.blocks.correctness", 2), ("trace.blocks.performance", 3),
    ]  # fmt: skip
    assert items[2]["tflops"] == 35.0
    assert items[0]["origin"] == "measured"
    assert items[0]["cause"].startswith(f"{writer_of('t')}.loop.")
    assert state.facts == {"Blocks.is_slow": False}
    assert state.rules == {"Blocks.Swizzle": 1}
    assert families(bus, "t", "metrics")[0]["values"] == {"success": True}
    assert [one["type"] for one in families(bus, "t", "run")] == ["run.started", "run.finished"]
    assert json.loads((workspace / "metrics.json").read_text())["success"] is True
    assert len(json.loads((workspace / "trace.json").read_text())) == 5


def test_an_invariant_that_is_false_stops_the_loop_and_says_so(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    ended = runner.start(bus, write(SYSTEM.replace("TFLOPS", "1")), "Wrong", run="w", options=live())

    assert ended.status == "failed"
    assert ended.reason == "stopped: invariant Blocks.Right is false: trace.latest(Correctness).passed"
    assert read_history(bus, "w").state.violated == ["Blocks.Right"]
    assert not (workspace / "never.txt").exists()
    assert [one["type"] for one in families(bus, "w", "run")] == ["run.started", "run.failed"]


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ('"fast"', "tflops"),
        ('1, "extra": 2', "extra"),
        ("1}} {{", "is not followed by JSON"),
    ],
)
def test_a_trace_line_that_does_not_fit_fails_its_step_with_the_line(
    bus: Bus, write: Write, live: Live, printed: str, said: str
) -> None:
    text = SYSTEM.replace("TFLOPS", printed.replace("{{", "{").replace("}}", "}"))

    ended = runner.start(bus, write(text), "Tune", run="b", options=live())

    assert ended.status == "failed"
    assert "line 1 of the output" in ended.reason
    assert said in ended.reason
    assert families(bus, "b", "trace") == []


def test_a_dry_run_records_plans_and_touches_nothing(bus: Bus, write: Write, workspace: Path) -> None:
    path = write('task t { step a: tool.run { cmd: "echo 1" output_var: x } step b: tool.write { path: "{{x}}" content: "c" }'
                 ' step c: llm.query { prompt: "{{x}}?" output_var: y } success: file_exists("c") }')  # fmt: skip

    ended = runner.start(bus, path, run="dry", options=Options(workspace=workspace))

    state = read_history(bus, "dry").state
    assert ended.status == "done"
    assert ended.verdict is not None
    assert ended.verdict.success is None
    assert all(one.planned for one in state.outcomes.values())
    assert state.outcomes["a"].output["argv"] == ["echo", "1"]
    assert state.variables["x"] is None
    assert not workspace.exists()
    assert families(bus, "dry", "metrics") == []


def test_a_suspended_loop_goes_on_when_any_client_has_answered(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    path = write(
        'task t { step a: llm.query { prompt: "why?" output_var: x } step b: tool.write { path: "o" content: "{{x}}" } }'
    )
    first = runner.start(bus, path, run="s", options=live())
    assert first.status == "suspended"
    assert first.waiting is not None

    assert runner.resume(bus, "s", options=Options()).status == "suspended"
    answer(bus, "s", first.waiting.path, "another prompt's", "no")
    assert runner.resume(bus, "s", options=Options()).status == "suspended"
    with Bus.open(bus.conn.settings) as other:
        answer(other, "s", first.waiting.path, first.waiting.sha256, "because")
        answer(other, "s", first.waiting.path, first.waiting.sha256, "too late")

    assert runner.resume(bus, "s", options=Options()).status == "done"
    assert (workspace / "o").read_text() == "because"


def test_a_changed_program_is_refused_unless_the_change_is_accepted(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    text = 'task t { step a: tool.write { path: "a" content: "1" } step b: llm.query { prompt: "?" } step c: tool.write { path: "c" content: "OLD" } }'  # fmt: skip
    path = write(text)
    ended = runner.start(bus, path, run="c", options=live())
    assert ended.waiting is not None
    answer(bus, "c", "b", ended.waiting.sha256, "x")
    write(text.replace("OLD", "NEW"))

    with pytest.raises(ProgramChanged, match="was changed since run c began: put it back, or go on with"):
        runner.resume(bus, "c", options=Options())
    assert read_history(bus, "c").state.attempt == 1  # nobody was fenced for it
    write("task t { step")
    with pytest.raises(ProgramChanged, match="does not check"):
        runner.resume(bus, "c", options=Options())
    write(text.replace("OLD", "NEW"))
    assert runner.resume(bus, "c", accept_changed_program=True, options=Options()).status == "done"
    assert (workspace / "c").read_text() == "NEW"
    # From here on the log's program is the new one.
    path.unlink()
    assert runner.resume(bus, "c", options=Options()).status == "done"


def test_two_who_resume_one_run_are_one_leader_and_one_fenced(bus: Bus, write: Write, live: Live) -> None:
    runner.start(bus, write('task t { step a: llm.query { prompt: "?" } }'), run="f", options=live())
    first = Journal.lead(bus, read_history(bus, "f"))
    second = Journal.lead(bus, read_history(bus, "f"))
    second.commit(LoopResumed(attempt=2, sha256="x"))

    with pytest.raises(Fenced, match="run f was taken over by another process: this one stops here"):
        first.commit(LoopResumed(attempt=2, sha256="x"))
    second.commit(LoopAssigned(path="p", name="x", value=1))
    assert read_history(bus, "f").state.variables["x"] == 1


def test_copies_that_a_killed_process_did_not_send_are_sent_once_by_the_next(
    bus: Bus, write: Write, live: Live
) -> None:
    runner.start(bus, write('task t { step a: llm.query { prompt: "?" } }'), run="k", options=live())
    from morphogen.schemas import LogLine, LoopRecorded

    journal = Journal.lead(bus, read_history(bus, "k"))
    journal._store.push = lambda records: None  # type: ignore[method-assign]  # killed before it sent them
    journal.commit(LoopResumed(attempt=2, sha256="x"))
    journal.commit(LoopRecorded(path="a", events=journal.carried(LogLine(message="one"), LogLine(message="two"))))
    assert families(bus, "k", "log") == []

    for _ in range(2):
        again = Journal.lead(bus, read_history(bus, "k"))
        assert again.close()
    assert [(one["message"], one["n"]) for one in families(bus, "k", "log")] == [("one", 1), ("two", 2)]


def test_a_name_is_taken_once_and_an_unknown_one_is_told(bus: Bus, write: Write, live: Live) -> None:
    path = write('task t { step a: tool.write { path: "a" content: "1" } }')
    runner.start(bus, path, run="n", options=live())

    with pytest.raises(RunExists, match="a loop run 'n' has begun already"):
        runner.start(bus, path, run="n", options=live())
    with pytest.raises(UnknownRun):
        runner.resume(bus, "nobody", options=Options())
    assert runner.resume(bus, "n", options=Options()).status == "done"


def test_being_asked_to_stop_keeps_what_was_done_and_the_next_process_goes_on(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    path = write(
        'task t { step a: tool.write { path: "a" content: "1" } step b: tool.run { cmd: "sleep 30" on_interrupt: retry timeout: 60 } }'
    )
    stop = threading.Event()
    threading.Timer(0.7, stop.set).start()

    with pytest.raises(Interrupted, match="`morphogen loop resume i` goes on"):
        runner.start(bus, path, run="i", options=live(stop=stop))
    state = read_history(bus, "i").state
    assert state.outcomes["a"].ok
    assert list(state.pending) == ["b"]
    (workspace / "a").unlink()
    write(path.read_text().replace("sleep 30", "true"))
    # The arguments of the step that was begun are those of then.
    stop = threading.Event()
    threading.Timer(0.7, stop.set).start()
    with pytest.raises(Interrupted):
        runner.resume(bus, "i", accept_changed_program=True, options=Options(stop=stop))
    assert not (workspace / "a").exists()


@pytest.mark.parametrize(
    ("word", "status", "ran"), [("retry", "done", 2), ("done: 7", "done", 1), ("fail", "failed", 1)]
)
def test_a_step_killed_in_mid_effect_is_asked_about_and_the_answer_counts(
    zygote: Any, bus: Bus, write: Write, tmp_path: Path, word: str, status: str, ran: int
) -> None:
    """An external effect without a policy of its own: nobody knows whether it happened, so a person is asked."""
    path = write('task t { step a: tool.run { cmd: "echo x >> ran; test $(wc -l < ran) -gt 1 || sleep 30; echo 5" shell: true'
                 ' output_var: n } step b: tool.write { path: "n" content: "{{n}}" } }')  # fmt: skip
    folder = tmp_path / "w"
    assert zygote.run("m", folder, path, kill_when=(folder / "ran").exists, kill_after=0.1)
    assert list(read_history(bus, "m").state.pending) == ["a"]

    asked = runner.resume(bus, "m", options=Options())
    assert asked.status == "suspended"
    assert asked.waiting is not None
    assert asked.waiting.kind == "effect"
    assert "was begun and its end is not in the log" in asked.waiting.prompt
    answer(bus, "m", "a", asked.waiting.sha256, word)
    ended = runner.resume(bus, "m", options=Options())

    assert ended.status == status
    assert (folder / "ran").read_text().count("x") == ran
    if status == "done":
        assert (folder / "n").read_text() == {"retry": "5", "done: 7": "7"}[word]


def test_large_outputs_and_large_programs_are_blobs(bus: Bus, write: Write, live: Live, workspace: Path) -> None:
    text = "x" * 300_000
    path = write(
        f'/* {"y" * 200_000} */ task t {{ step a: tool.write {{ path: "big" content: "{text}" }}'
        ' step b: tool.read { path: "big" output_var: t } step q: llm.query { prompt: "?" }'
        ' step c: tool.write { path: "copy" content: t } }'
    )
    ended = runner.start(bus, path, run="l", options=live())
    path.unlink()
    assert ended.waiting is not None
    answer(bus, "l", "q", ended.waiting.sha256, "z")

    assert runner.resume(bus, "l", options=Options()).status == "done"
    assert (workspace / "copy").read_text() == text
    assert "$blob" in read_history(bus, "l").state.outcomes["b"].output


def test_a_step_may_fail_and_the_loop_go_on_or_try_again(bus: Bus, write: Write, live: Live, workspace: Path) -> None:
    path = write('task t { step a: tool.run { cmd: "false" on_failure: continue } '
                 ' step b: tool.run { cmd: "echo x >> n; test $(wc -l < n) -ge 3" shell: true retries: 3 } }')  # fmt: skip

    ended = runner.start(bus, path, run="r", options=live())

    state = read_history(bus, "r").state
    assert ended.status == "done"
    assert not state.outcomes["a"].ok
    assert state.outcomes["b"].ok
    assert (workspace / "n").read_text() == "x\n" * 3


def test_a_run_goes_on_as_it_was_begun(bus: Bus, write: Write, workspace: Path) -> None:
    path = write('task t { step a: tool.write { path: "a" content: "1" } step b: llm.query { prompt: "?" } }')
    runner.start(bus, path, run="d", options=Options(workspace=workspace, live=True))

    with pytest.raises(LoopError, match="was begun with --live and goes on so"):
        runner.resume(bus, "d", options=Options(live=False, backend="script"))


def test_the_lane_of_a_run_is_where_readers_of_its_family_look() -> None:
    assert lane_subject("a b") == "morphogen.log.a=20b.loop.steps"


def test_a_broker_that_is_killed_on_the_way_is_waited_for(
    bus: Bus, write: Write, live: Live, workspace: Path, settings: Any
) -> None:
    steps = " ".join(
        f'step s{number}: tool.write {{ path: "log" content: "{number}\\n" mode: append }}' for number in range(40)
    )
    path = write(f"task t {{ {steps} }}")
    endpoint = brokers.ensure(settings)
    assert endpoint.pid is not None

    def kill() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and not (workspace / "log").exists():
            time.sleep(0.001)
        os.kill(endpoint.pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ended = runner.start(bus, path, run="b", options=live())
    killer.join()

    assert ended.status == "done"
    assert (workspace / "log").read_text().split() == [str(number) for number in range(40)]
    counters = [seen.record.n for seen in bus.events(run="b", family="loop")]
    assert counters == list(range(1, len(counters) + 1))


def test_ten_thousand_trace_lines_of_one_step_are_all_there_once(bus: Bus, write: Write, live: Live) -> None:
    line = "MORPHOGEN_TRACE {'case': 'P', 'x': %d}".replace("'", '\\"')
    path = write(
        "system S { trace_schema { variant T { case P { x: int } } } agent_loop L { step a: tool.run { cmd: "
        f'["awk", "BEGIN {{ for (i = 0; i < 10000; i++) printf \\"{line.replace(chr(92), chr(92) * 3)}\\\\n\\", i }}"]'
        " } -> emit T.P } }"
    )

    assert runner.start(bus, path, run="many", options=live()).status == "done"

    assert [one["n"] for one in families(bus, "many", "trace")] == list(range(1, 10001))
    assert [item.body["x"] for item in read_history(bus, "many").state.trace] == list(range(10000))


def test_a_full_disk_ends_the_process_in_one_line_and_the_run_goes_on_when_there_is_room(
    bus: Bus, write: Write, live: Live, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('task t { step a: tool.write { path: "a" content: "1" } }')

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkspaceError, match="a cannot be written: No space left on device; free some space"):
        runner.start(bus, path, run="full", options=live())
    monkeypatch.undo()

    assert runner.resume(bus, "full", options=Options()).status == "done"
    assert (workspace / "a").read_text() == "1"
