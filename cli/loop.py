"""`loop`: run durable loops, go on with them, answer what they ask, look at what they did.

Exit codes of `run` and `resume`: 0 done, 1 failed, 2 the program or the command line is wrong, 3 the loop waits for an answer.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from morphogen.schemas import EncodeError, MorphogenError, encode, json_text, jsonable, sound

from .app import FAILED, WRONG_USE, app, settings_of
from .loop_improve import add_improve
from .loop_shown import print_state, print_waiting, short, summary, whole
from .moments import moment
from .pairs import pairs
from .saying import cell, echo
from .standard import needed_input
from .tables import print_rows

if TYPE_CHECKING:
    from morphogen.producers.loops.runner import Ended, Options
    from morphogen.producers.loops.state import State, Waiting

SUSPENDED = 3

loop = typer.Typer(help="Durable loops: run them, resume them, answer them, see what they did.", no_args_is_help=True)
app.add_typer(loop, name="loop")

_Run = Annotated[str, typer.Argument(help="The run's name.")]
_Live = Annotated[
    bool, typer.Option("--live", help="Act. Without it every effect is only planned, and recorded as a plan.")
]
_Workspace = Annotated[
    Path | None, typer.Option(help="The only folder that the loop's tools touch. Default: the current one.")
]
_Backend = Annotated[
    str | None, typer.Option(help="Who answers llm.query: suspend, script, replay, openai, llama. Default: suspend.")
]
_BackendOption = Annotated[
    list[str] | None, typer.Option("--backend-option", "-o", help="An option of the backend, name=value; repeat it.")
]


@loop.command("run")
def run_loop(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A knowledge module, FILE.mk.")],
    name: Annotated[
        str | None, typer.Argument(help="The task or loop; may be left out where there is only one.")
    ] = None,
    live: _Live = False,
    workspace: _Workspace = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="A variable's first value, name=value (JSON or text); repeat it.")
    ] = None,
    backend: _Backend = None,
    backend_option: _BackendOption = None,
    run: Annotated[str | None, typer.Option(help="A name for the run. Default: the loop's name and the time.")] = None,
) -> None:
    """Run a loop from its beginning; every step is an event, so it can be gone on with wherever it stops."""
    from morphogen.producers.loops import runner

    with _told(), _opened(context) as (bus, options):
        options.live, options.workspace = live, workspace
        options.parameters = _values(values, "--set")
        options.backend, options.backend_options = backend, _values(backend_option, "--backend-option")
        _exit(runner.start(bus, file, name, run=run, options=options))


@loop.command()
def resume(
    context: typer.Context,
    run: _Run,
    workspace: Annotated[Path | None, typer.Option(help="Another folder than before, on another machine say.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept-changed-program", help="Go on with the program file as it is now.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="Where the program's file is now. Default: where it was.")] = None,
    backend: _Backend = None,
    backend_option: _BackendOption = None,
) -> None:
    """Go on with a run from where the log says it stands; what is done is not done again."""
    from morphogen.producers.loops import runner

    with _told(), _opened(context) as (bus, options):
        options.workspace = workspace
        options.backend, options.backend_options = backend, _values(backend_option, "--backend-option")
        _exit(runner.resume(bus, run, path=file, accept_changed_program=accept, options=options))


@loop.command()
def answer(
    context: typer.Context,
    run: _Run,
    text: Annotated[str | None, typer.Option(help="The answer.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file that holds the answer; - is standard input.")] = None,
    editor: Annotated[bool, typer.Option("--editor", help="Write the answer in $EDITOR.")] = False,
    go_on: Annotated[bool, typer.Option("--resume", help="Resume the run at once.")] = False,
) -> None:
    """Answer what a suspended run asks."""
    from morphogen.producers.loops.errors import NotSuspended
    from morphogen.producers.loops.journal import answer as put_answer
    from morphogen.producers.loops.journal import read_history

    if sum((text is not None, file is not None, editor)) != 1:
        raise typer.BadParameter("give the answer by one of --text, --file and --editor")
    with _told():
        with _opened(context) as (bus, _):
            waiting = read_history(bus, run).state.waiting
            if waiting is None:
                raise NotSuspended(f"run {run} waits for no answer: see `morphogen loop show {run}`")
            said = _said(text, file, waiting)
            put_answer(bus, run, waiting.path, waiting.sha256, said, by=os.environ.get("USER"))
        if not go_on:
            echo(f"answered; go on with: morphogen loop resume {shlex.quote(run)}")
            return
    resume(context, run)


@loop.command("list")
def list_runs(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the runs of loops, oldest first."""
    from morphogen.producers.loops.journal import read_all

    with _told(), _opened(context) as (bus, _):
        states = [history.state for history in read_all(bus)]
    if as_json:
        for state in states:
            echo(json_text(summary(state)))
        return
    if not states:
        echo("no loops")
        return
    table = Table(show_edge=False, header_style="bold")
    table.add_column("run", overflow="fold", min_width=min(28, max(len(state.run) for state in states)))
    for name in ("loop", "kind", "status", "steps", "started", "reason"):
        table.add_column(name, overflow="fold")
    print_rows(table, states, _cells, newest_last=True)


def _cells(state: "State") -> tuple[object, ...]:
    status = "planned" if state.status == "done" and not state.live else state.status  # nothing was done
    return state.run, state.loop, state.kind, status, state.steps, moment(state.started), state.reason


@loop.command()
def show(
    context: typer.Context,
    run: _Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how a run stands: its steps, its variables, what it waits for, its verdict."""
    from morphogen.producers.loops.journal import read_history

    with _told(), _opened(context) as (bus, _):
        state = read_history(bus, run).state
    if as_json:
        echo(json.dumps(jsonable(whole(state)), indent=2, ensure_ascii=False))
        return
    print_state(state)


@loop.command()
def trace(
    context: typer.Context,
    run: _Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every event of a run in the order of the log."""
    from morphogen.producers.loops.journal import read_events

    with _told(), _opened(context) as (bus, _):
        events = list(read_events(bus, run))
    for time_ns, type_name, event in events:
        fields = jsonable(event)
        if as_json:
            echo(json_text({"time": time_ns, "type": type_name, **fields}))
            continue
        shown = " ".join(
            f"{name}={short(value)}" for name, value in fields.items() if value not in (None, "", [], {}, "retry", 0)
        )
        echo(f"{moment(time_ns)} {type_name.removeprefix('loop.'):14} {shown}")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what is wrong with the program or the command line into lines and exit code 2."""
    from morphogen.producers.loops.errors import (
        BadValue,
        Interrupted,
        NotSuspended,
        ProgramChanged,
        RunExists,
        UnknownRun,
    )
    from morphogen.producers.loops.llm import BackendError
    from morphogen.schemas.knowledge.errors import KnowledgeError

    try:
        yield
    except KnowledgeError as error:
        echo(error.render() or f"morphogen: {error}", err=True)
        raise typer.Exit(WRONG_USE) from None
    except (BadValue, ProgramChanged, UnknownRun, RunExists, NotSuspended, BackendError) as error:
        echo(f"morphogen: {error}", err=True)
        raise typer.Exit(WRONG_USE) from None
    except Interrupted as error:
        echo(f"morphogen: {error}", err=True)
        raise typer.Exit(0 if error.at_rest else 130) from None


@contextlib.contextmanager
def _opened(context: typer.Context) -> "Iterator[tuple[Any, Options]]":
    """Open the bus, and let Ctrl-C and SIGTERM ask a loop to stop between effects; a second one insists."""
    from morphogen.bus.bus import Bus
    from morphogen.producers.loops.runner import Options

    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():  # asked again: at once, whatever it waits for
            raise KeyboardInterrupt
        stop.set()

    with Bus.open(settings_of(context), name="loop") as bus:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with _progress() as progress:
                yield (
                    bus,
                    Options(stop=stop, progress=progress, say=lambda line: echo(f"morphogen: {line}", err=True)),
                )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _progress() -> "Iterator[Callable[[int, int | None, str], None]]":
    """Give what shows progress: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, text: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    said, counted = TextColumn("{task.description}"), MofNCompleteColumn()
    columns = (said, BarColumn(), counted, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task("", total=None, visible=False)
        yield lambda done, total, text: bars.update(
            task, completed=done, total=total, description=cell(text), visible=True
        )


def _exit(ended: "Ended") -> None:
    """Say how a process left the run, and exit with the code for it."""
    name = shlex.quote(ended.run)
    if ended.status == "suspended" and ended.waiting is not None:
        print_waiting(ended.waiting)
        echo(f"run {ended.run} is suspended: {ended.waiting.reason}", err=True)
        echo(f"answer it with:   morphogen loop answer {name} --text '...'", err=True)
        echo(f"then go on with:  morphogen loop resume {name}", err=True)
        raise typer.Exit(SUSPENDED)
    if ended.status == "failed":
        echo(f"morphogen: run {ended.run} failed: {ended.reason}", err=True)
        raise typer.Exit(FAILED)
    verdict = ended.verdict
    if verdict is not None and verdict.success is None:
        echo(f"planned: {ended.run}, {ended.steps} steps; nothing was done (--live acts): morphogen loop show {name}")
        return
    metrics = "" if verdict is None else "".join(f", {one} {value:g}" for one, value in verdict.metrics.items())
    echo(f"done: {ended.run}, {ended.steps} steps{metrics}")
    if ended.swept:
        echo(_found(ended.swept))


def _found(swept: "dict[str, Any]") -> str:
    """Return what a sweep found, in a line."""
    trials = f"{swept.get('trials', 0)} trials"
    best = swept.get("best")
    if best is None:
        return f"none of {trials} is any good: {swept.get('failed', 0)} failed, {swept.get('rejected', 0)} rejected"
    speedup = swept.get("speedup")
    gain = "" if speedup is None else f", {speedup:.3g}x the baseline"
    return f"best of {trials}: {swept['metric']:.6g}{gain} with {', '.join(f'{name}={value}' for name, value in best.items())}"


def _said(text: str | None, file: Path | None, waiting: "Waiting") -> str:
    if text is not None:
        return text
    if file is None:
        return _edited(waiting)
    from morphogen.producers.loops.llm.converse import REPLY_MAX

    try:
        with contextlib.nullcontext(needed_input().buffer) if str(file) == "-" else file.open("rb") as source:
            data = source.read(REPLY_MAX + 1)
        if len(data) > REPLY_MAX:
            raise MorphogenError(f"the answer in {file} is longer than {REPLY_MAX // 1024} KiB, which no run takes")
        return data.decode()
    except OSError as error:
        raise MorphogenError(f"the answer cannot be read: {file}: {error.strerror}; name another file") from None
    except UnicodeDecodeError as error:
        raise MorphogenError(
            f"the answer is no text: {file}: byte {error.start} is no UTF-8; convert the file"
        ) from None


def _edited(waiting: "Waiting") -> str:
    command = _editor()
    question = "".join(f"# {line}\n" for line in f"{waiting.system or ''}\n{waiting.prompt}".strip().splitlines())
    with tempfile.NamedTemporaryFile("w+", suffix=".md", prefix="answer-") as file:
        file.write(f"\n{question}")
        file.flush()
        try:
            subprocess.run([*command, file.name], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise MorphogenError(f"the editor {command[0]} did not end well: {error}; set EDITOR") from error
        try:
            written = Path(file.name).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise MorphogenError(f"the editor {command[0]} left no text of UTF-8: {error}") from None
    lines = [line for line in written.splitlines() if not line.startswith("# ")]
    answer_text = "\n".join(lines).strip()
    if not answer_text:
        raise MorphogenError("the answer is empty: nothing was sent")
    return answer_text


def _editor() -> list[str]:
    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        words = shlex.split(wanted)
    except ValueError as error:
        raise MorphogenError(f"the editor {wanted!r} cannot be split into words: {error}; set EDITOR") from None
    if not words:
        raise MorphogenError("the editor is empty: set EDITOR")
    return words


def _values(given: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Return values that an event can hold."""
    found = pairs(given, option)
    for name, value in found.items():
        try:
            encode({name: value})
        except EncodeError as error:
            raise typer.BadParameter(f"{option} {sound(name)}: {error}") from None
    return found


add_improve(loop)
