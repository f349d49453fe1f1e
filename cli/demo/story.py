"""The demo, told: train, kill, restart, ask, rebuild; every number shown is read back from the log."""

import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from morphogen.bus import broker
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.formats import Result
from morphogen.consumers.projections.sql.query import query
from morphogen.replay.sync import rebuild, verify
from morphogen.schemas import MorphogenError

from .questions import QUESTIONS

_STEPS_AT_KILL = 500
_STEPS_AT_BROKER_KILL = 900
_PATIENCE = 90.0  # seconds for any one scene


class DemoFailed(MorphogenError):
    """The demo did not go as it must."""


def tell(folder: Path, console: Console) -> None:
    """Run the whole story in `folder`, which keeps its data afterwards. Raises DemoFailed where a promise broke."""
    missing = [name for name in ("torch", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoFailed(f"the demo needs {' and '.join(missing)}: pip install 'morphogen[demo]'")
    settings = replace(Settings.from_environ(home=folder), urls=(), creds=None)
    logging.getLogger("morphogen").setLevel(logging.ERROR)  # what this process would warn of is the story itself
    os.environ["MORPHOGEN_HOME"] = str(folder)
    os.environ.pop("MORPHOGEN_URL", None)
    began = time.monotonic()
    console.print(Panel.fit("[bold]Morphogen[/]: what happens to a training run's numbers when everything dies"))
    with _broker(settings, console), _process("projector", "-m", "morphogen.cli", "projector") as projector:
        _train_with_accidents(settings, folder, console)
        _answer(settings, console)
        _accounts(settings, console)
        projector.send_signal(signal.SIGTERM)
        projector.wait(20)
        _rebuild(settings, console)
    _closing(folder, console, time.monotonic() - began)


def _train_with_accidents(settings: Settings, folder: Path, console: Console) -> None:
    with _process("trainer", "-m", "morphogen.cli.demo.train", str(folder)) as trainer:
        _until(settings, _STEPS_AT_KILL, trainer, console, "training a small network on the digits, attempt 1")
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        (step,) = _row(settings, "SELECT max(step) FROM metrics WHERE run = 'digits'")
        console.print(f"  [red]kill -9[/] the trainer at step {step}")
    with _process("trainer", "-m", "morphogen.cli.demo.train", str(folder)) as trainer:
        _until(settings, _STEPS_AT_BROKER_KILL, trainer, console, "restarted from its checkpoint, attempt 2", attempt=2)
        victim = broker.status(settings).pid
        if victim is None:
            raise DemoFailed("the broker is not there to be killed")
        os.kill(victim, signal.SIGKILL)
        console.print("  [red]kill -9[/] the broker, while the trainer goes on")
        with console.status("the broker comes back, the trainer finishes"):
            if trainer.wait(_PATIENCE) != 0:
                raise DemoFailed("the restarted trainer failed; its words stand above")
        console.print("  [green]finished[/]: the trainer never noticed")


def _answer(settings: Settings, console: Console) -> None:
    for question in QUESTIONS:
        result = query(question.sql, wait=True, settings=settings)
        console.print(f"\n[bold]{question.words}[/]")
        console.print(_table(result))


def _accounts(settings: Settings, console: Console) -> None:
    result = query(
        "SELECT attempt, family, produced, projected, dropped, lost FROM producers WHERE run = 'digits' ORDER BY ALL",
        wait=True,
        settings=settings,
    )
    console.print("\n[bold]Is anything missing?[/] (what the trainers counted against what SQL sees)")
    console.print(_table(result))
    (lost, doubled) = _row(settings, "SELECT sum(lost), sum(doubled) FROM producers WHERE run = 'digits'")
    if lost or doubled:
        raise DemoFailed(f"{lost} events were lost and {doubled} doubled: please report this")


def _rebuild(settings: Settings, console: Console) -> None:
    with console.status("building every table again from the log alone"):
        rebuild(settings)
        report = verify(settings)
    if not report.ok:
        raise DemoFailed(f"the rebuilt tables differ: {report.summary()}")
    console.print(f"\n[green]rebuilt from zero[/], and again beside it: {report.summary()}")


def _closing(folder: Path, console: Console, took: float) -> None:
    console.print(
        Panel.fit(
            "Two processes were killed; nothing that log() took is missing, and SQL answered all along.\n\n"
            "[bold]Try next[/]\n"
            f'  morphogen --home {folder} sql "SELECT * FROM runs"\n'
            f"  morphogen --home {folder} sql \"SELECT * FROM layer_health\" --as-of '1m ago' --format csv\n"
            f"  morphogen --home {folder} replay --type 'run.*'\n"
            "  and in your own loop: [bold]run = morphogen.record('name'); run.log(loss=loss, step=step)[/]",
            title=f"done in {took:.0f} s",
        )
    )


@contextlib.contextmanager
def _broker(settings: Settings, console: Console) -> Iterator[None]:
    endpoint = broker.ensure(settings)
    console.print(f"a broker of our own is up at {', '.join(endpoint.urls)}, its store under {settings.home}")
    try:
        yield
    finally:
        broker.down(settings)


@contextlib.contextmanager
def _process(what: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, *arguments])
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _until(
    settings: Settings, step: int, trainer: subprocess.Popen[bytes], console: Console, words: str, attempt: int = 1
) -> None:
    deadline = time.monotonic() + _PATIENCE
    sql = f"SELECT coalesce(max(step), 0) FROM metrics WHERE run = 'digits' AND attempt = {attempt}"
    with console.status(words) as status:
        while True:
            (seen,) = _row(settings, sql)
            status.update(f"{words}: step {seen}, read with SQL while it trains")
            if seen >= step:
                break
            if trainer.poll() is not None:
                raise DemoFailed("the trainer ended too early; its words stand above")
            if time.monotonic() > deadline:
                raise DemoFailed(f"step {step} was not reached within {_PATIENCE:g} s")
            time.sleep(0.1)
    console.print(f"{words}: step {seen} is in SQL")


def _row(settings: Settings, sql: str) -> tuple[int, ...]:
    (row,) = query(sql, settings=settings).rows()
    return tuple(row)


def _table(result: Result) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for name in result.columns:
        table.add_column(name)
    for row in result.rows():
        table.add_row(*("" if value is None else str(value) for value in row))
    return table
