"""`do`: reach a goal in the cheapest way that is likely enough, and say which way that was, what it cost and what it saved.

Exit codes: 0 reached, 1 not reached, 2 the command line, a program or the settings are wrong, 3 a loop waits for an answer.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from morphogen.schemas.executions import MODES
from morphogen.schemas.goals import signature

from .app import FAILED, WRONG_USE, app, settings_of
from .do_settings import FILE, DoError, micros, read_settings
from .pairs import pairs
from .saying import echo

WAITING = 3


class Mode(StrEnum):
    """Where to begin."""

    CRYSTALLIZED = "crystallized"
    FOLLOWER = "follower"
    MIXED = "mixed"
    LEARNER = "learner"
    ORCHESTRATOR = "orchestrator"


assert tuple(Mode) == MODES


@app.command("do")
def do(
    context: typer.Context,
    goal: Annotated[
        str, typer.Argument(help='What is to be reached, in a sentence: "Sum the column price of shop.csv".')
    ],
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A value in the goal that changes, name=value (JSON or text); repeat it."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="The most that models may cost, in dollars: 0.05. Held before money is spent.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Begin with this mode; guards and the budget hold for it too.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option("--with", help="A knowledge module, FILE.mk, whose loop pursues the goal.")
    ] = None,
    loop: Annotated[str | None, typer.Option("--loop", help="Its task or agent loop, where it has several.")] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="The only folder that is touched. Default: the current one.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Who answers where a model is needed: script, openai, llama, replay, suspend.")
    ] = None,
    backend_option: Annotated[
        list[str] | None,
        typer.Option("--backend-option", "-o", help="An option of the backend, name=value; repeat it."),
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Have the model judge the answer of the standard loop.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Look, and change nothing.")] = False,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let a model start programs in the workspace (tool.run).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only decide: show every mode, and why it would be taken or not.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings. Default: do.toml in the data folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Reach a goal in the cheapest way: by a tool, by a recorded course, or by asking a model."""
    from . import do_shown, do_wiring

    settings = settings_of(context)
    with _told():
        params, limit = pairs(param, "--param", DoError), None if budget is None else micros(budget)
        if not goal.strip():
            raise DoError("the goal is empty: say in a sentence what is to be reached")
        _must_be_text(goal, params)
        if (dry_run or read_only) and workspace is not None and not os.path.isdir(workspace):
            raise DoError(f"there is no folder {workspace} to look at: make it, or name another with --workspace")
        file = config or settings.home / FILE
        chosen = do_wiring.Chosen(
            settings=read_settings(file, named=config is not None),
            folder=file.parent,
            workspace=workspace or Path.cwd(),
            program=_program(program, loop),
            backend=backend,
            backend_options=pairs(backend_option, "--backend-option", DoError),
            read_only=read_only,
            allow_run=allow_run,
            judge=judge,
            say=lambda line: echo(f"morphogen: {line}", err=True),
        )
        family = signature(goal, params)
        with (
            _bus(settings, chosen.stop) as bus,
            do_wiring.wired(bus, settings, chosen, family, record=not dry_run) as made,
        ):
            for lost in made.unfinished:
                echo(
                    f"morphogen: an earlier request was not finished: {lost.goal} ({lost.request}, {lost.mode})",
                    err=True,
                )
            refused = made.unloaded(family)
            if refused is not None:
                echo(f"morphogen: {refused}", err=True)
            start = None if mode is None else mode.value
            if dry_run:
                decided = made.dispatcher.decide(goal, params, budget_microusd=limit, mode=start)
                if as_json:
                    echo(do_shown.decision_json(decided))
                else:
                    do_shown.print_decision(decided)
                return
            done = made.dispatcher.do(goal, params, budget_microusd=limit, mode=start)
            waits = not done.ok and _waits(bus, done.execution)
    if as_json:
        echo(do_shown.done_json(done))
    else:
        do_shown.print_done(done, backend=made.learner.backend, answer_only=quiet)
    if done.ok:
        return
    echo(f"morphogen: {done.error or 'the goal was not reached'}{_hint(done.mode, made.learner.backend)}", err=True)
    raise typer.Exit(WAITING if waits else FAILED)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what is wrong with the command line, a program or the settings into lines and exit code 2."""
    from morphogen.consumers.dispatch import DispatchError
    from morphogen.producers.executions import PricesError
    from morphogen.producers.loops.errors import LoopError
    from morphogen.producers.loops.llm import BackendError
    from morphogen.schemas.knowledge.errors import KnowledgeError

    try:
        yield
    except KnowledgeError as error:
        echo(error.render() or f"morphogen: {error}", err=True)
        raise typer.Exit(WRONG_USE) from None
    except (DoError, DispatchError, BackendError, PricesError, LoopError) as error:
        echo(f"morphogen: {error}", err=True)
        raise typer.Exit(WRONG_USE) from None


@contextlib.contextmanager
def _bus(settings: Any, stop: threading.Event) -> Iterator[Any]:
    """Open the bus, and let Ctrl-C and SIGTERM ask a loop to stop between effects; a second one insists."""
    from morphogen.bus.bus import Bus

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with Bus.open(settings, name="do") as bus:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield bus
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _waits(bus: Any, execution: str | None) -> bool:
    """Tell whether an execution is a loop that is suspended until somebody answers."""
    from morphogen.producers.loops.errors import UnknownRun
    from morphogen.producers.loops.journal import read_history
    from morphogen.producers.loops.state import SUSPENDED

    if execution is None:
        return False
    try:
        return read_history(bus, execution).state.status == SUSPENDED
    except UnknownRun:
        return False


def _program(file: Path | None, loop: str | None) -> Any:
    from morphogen.producers.loops.goals import Program

    if file is None:
        if loop is not None:
            raise DoError("--loop names a loop of a program: give the program by --with FILE.mk")
        return None
    return Program(file.absolute(), loop)


def _must_be_text(goal: str, params: dict[str, Any]) -> None:
    """Raise DoError for bytes of a command line, or escapes of JSON, that are no characters."""
    try:
        f"{goal}{json.dumps(params, ensure_ascii=False)}".encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start]
        raise DoError(f"the goal or a parameter holds {bad!a}, which is no character: write UTF-8") from None


def _hint(mode: str, backend: str | None) -> str:
    return (
        "" if backend is not None or mode not in {"none", ""} else "; name a model by --backend, or a program by --with"
    )
