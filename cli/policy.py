"""`policy train`, `policy show`: what the learned policy learns from, and what it knows."""

import contextlib
import importlib
import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphogen.schemas import MorphogenError, line_of

from .app import app, settings_of
from .history import with_broker
from .saying import echo

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings
    from morphogen.consumers.policy import Policy
    from morphogen.consumers.policy.gnn import Brain, Episode, Trainer
    from morphogen.consumers.policy.gnn.training import Environment

policy = typer.Typer(help="The learned policy: train it, look at it.", no_args_is_help=True)
app.add_typer(policy, name="policy")


@policy.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The checkpoint to write.")] = Path("policy.safetensors"),
    runs: Annotated[
        list[str] | None,
        typer.Option("--runs", help="Learn from these recorded runs; patterns such as 'digits-*'. May be repeated."),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="Decide and learn: module:function, called with a policy and a number for each episode."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of the environment.")] = 40,
    first: Annotated[int, typer.Option(min=0, help="The number of the first episode.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Experiences to learn from at most, in all.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="The checkpoint to go on from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the training.")] = 0,
    name: Annotated[str | None, typer.Option(help="What to call the recorded run. Default: a new name.")] = None,
    keep: Annotated[bool, typer.Option(help="Keep every version beside it, by its sha256.")] = False,
) -> None:
    """Train gnn-ppo: from what is in the log, or by an environment that lets it decide. The training is a recorded run."""
    from morphogen.consumers.policy.gnn import Trainer
    from morphogen.producers import record

    settings = settings_of(context)
    if runs and environment:
        raise typer.BadParameter("choose one: --runs or --environment")
    with _own_modules():
        play = None if environment is None else _function(environment)
        brain = None if start is None else _brain(start)
        found = [] if play is not None else with_broker(settings, lambda conn: _episodes(conn, settings, runs or ()))
        config = {"policy": "gnn-ppo", "environment": environment, "runs": runs, "from": str(start or ""), "seed": seed}
        with record(name, config=config, settings=settings) as run:
            trainer = Trainer(brain, seed=seed, run=run, path=out, keep=keep)
            if play is None:
                trainer.study([events_of(trainer.brain) for events_of in found], limit=limit)
            else:
                trainer.fit(play, range(first, first + episodes), limit=limit, heard=lambda told: _say(trainer, told))
    _print(trainer.brain)
    echo(f"written to {out}; recorded as run {run.name}")


@policy.command()
def show(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of gnn-ppo.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show what a checkpoint was trained on, and how it decides."""
    import msgspec

    brain = _brain(checkpoint)
    if not as_json:
        _print(brain)
        return
    document = {
        "policy": "gnn-ppo",
        "version": brain.version,
        "parameters": sum(weight.size for weight in brain.weights.values()),
        "schooling": msgspec.to_builtins(brain.schooling),
        "settings": msgspec.to_builtins(brain.settings),
        "columns": list(brain.columns),
        "reward_mean": brain.reward_mean,
        "reward_spread": brain.reward_spread,
    }
    echo(json.dumps(document, indent=2))


def _brain(path: Path) -> "Brain":
    from morphogen.consumers.policy import CheckpointError, load_checkpoint
    from morphogen.consumers.policy.gnn import Brain

    checkpoint = load_checkpoint(path)
    if checkpoint.policy != "gnn-ppo":
        raise CheckpointError(f"{path}: a checkpoint of policy {checkpoint.policy!r:.100}, not of gnn-ppo")
    return Brain.of(checkpoint)


async def _episodes(
    conn: "Connection | None", settings: "Settings", patterns: Any
) -> "list[Callable[[Brain], Episode]]":
    """Return what reads each recorded run as an episode, once the columns are known."""
    from morphogen.consumers.policy.gnn import Episode
    from morphogen.replay.backtest.recorded import Recorded, recorded_runs

    def reader(recorded: Recorded) -> "Callable[[Brain], Episode]":
        events = [told.event for told in recorded.told]
        return lambda brain: Episode.read(events, brain.columns)

    stories: AsyncGenerator[Recorded, None] = recorded_runs(conn, settings, patterns)
    async with aclosing(stories):
        return [reader(recorded) async for recorded in stories]


def _say(trainer: "Trainer", told: dict[str, float]) -> None:
    schooling = trainer.brain.schooling
    reward = f", reward {told['reward']:.3g}" if "reward" in told else ""
    echo(f"episode {schooling.episodes}: {schooling.experiences} experiences, {schooling.outcomes} outcomes{reward}")


def _print(brain: "Brain") -> None:
    schooling, settings = brain.schooling, brain.settings
    echo(f"gnn-ppo {brain.version}")
    echo(
        f"  learned from  {schooling.experiences:,} experiences, {schooling.outcomes:,} judged germinations, "
        f"{schooling.episodes:,} episodes, in {schooling.updates:,} updates"
    )
    echo(f"  rewards       mean {brain.reward_mean:.4g}, standard deviation {brain.reward_spread:.4g}")
    echo(
        f"  network       {sum(weight.size for weight in brain.weights.values()):,} weights, {settings.hidden} units, "
        f"{settings.heads} heads, {settings.members} members in the ensemble, {len(brain.columns)} columns read"
    )


def _function(text: str) -> "Environment":
    """Return the user's function, whatever of which fails is told in one line."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise MorphogenError(
            f"environment {text!r} cannot be imported: {type(error).__name__}: {line_of(error)}"
        ) from error
    if not callable(found):
        raise MorphogenError(f"environment {text!r} is no function: it is called with a policy and a number")

    def play(policy: "Policy", number: int) -> Any:
        try:
            return found(policy, number)
        except MorphogenError:
            raise
        except (Exception, SystemExit) as error:
            raise MorphogenError(
                f"environment {text!r} failed in episode {number}: {type(error).__name__}: {line_of(error)}"
            ) from error

    return play


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Find the modules of the folder that the command was called in, as `python` does."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
