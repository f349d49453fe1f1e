"""`loop improve`: a better program out of what its runs recorded, as a diff to accept."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphogen.schemas import jsonable

from .app import WRONG_USE, settings_of
from .pairs import pairs
from .saying import echo

if TYPE_CHECKING:
    from morphogen.producers.loops.improve import Improvement, RunTest

_SHOWN_RUNS = 10


def add_improve(loops: typer.Typer) -> None:
    """Put `improve` among the commands of `loop`."""
    loops.command("improve")(improve)


def improve(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A knowledge module, FILE.mk.")],
    name: Annotated[str | None, typer.Argument(help="Only by runs of this task or loop.")] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option("--runs", help="A run, or a pattern such as 'tune-*'; repeat it. Default: all of this file."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Accept: put the change into the file.")] = False,
    accept_if: Annotated[
        str | None,
        typer.Option(help="Accept where this holds of the back-test, such as 'saved_seconds > 0 && verdict_same'."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="A model that may draft a change too: script, replay, openai, llama.")
    ] = None,
    backend_option: Annotated[
        list[str] | None,
        typer.Option("--backend-option", "-o", help="An option of the backend, name=value; repeat it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Propose a better program from what its runs recorded: checked, back-tested on them, shown as a diff.

    Nothing is written without --write or --accept-if. No proposal is no failure.
    """
    from morphogen.bus.bus import Bus
    from morphogen.producers.loops.improve import accepts, read_policy
    from morphogen.producers.loops.improve import improve as find_changes
    from morphogen.producers.loops.improve import write as write_change
    from morphogen.producers.loops.llm import backend as make_backend
    from morphogen.schemas.knowledge.errors import KnowledgeError

    if write and accept_if is not None:
        raise typer.BadParameter("--write accepts by hand and --accept-if by a policy: give one of them")
    given = pairs(backend_option, "--backend-option")
    with Bus.open(settings_of(context)) as bus:
        model = None if backend is None else make_backend(backend, given, bus=bus)
        try:
            made = find_changes(bus, file, loop=name, runs=runs or (), backend=model)
        except KnowledgeError as error:
            echo(error.render() or f"morphogen: {error}", err=True)
            raise typer.Exit(WRONG_USE) from error
        figures = made.figures()
        policy = None if accept_if is None else read_policy(accept_if, figures)
        accepted_by = None
        if made.changes:
            accepted_by = "human" if write else None
            if policy is not None and accepts(policy, figures):
                accepted_by = f"policy: {accept_if}"
        if accepted_by is not None:
            write_change(bus, made, accepted_by=accepted_by)
    if as_json:
        echo(json.dumps(jsonable(_plain(made, accepted_by)), indent=2, ensure_ascii=False))
        return
    _show(made)
    if not made.changes:
        return
    if accepted_by is not None:
        echo(f"\nwritten to {file}, accepted by {accepted_by}")
    elif policy is not None:
        echo(f"\nnot written: {accept_if} does not hold")
    else:
        echo("\nnothing is written: --write accepts it")


def _show(made: "Improvement") -> None:
    test = made.figures()
    for change in made.changes:
        echo(f"{change.title}\n    {change.why}")
    if made.changes:
        echo(
            f"back-test over {test['judged']} of {test['runs']} runs: every verdict the same, "
            f"{test['saved_steps']:,} steps, {test['saved_seconds']:.3g} s, {test['saved_tokens']:,} tokens, "
            f"{test['saved_trials']:,} measurements saved"
            + (f" ({test['borrowed']} outcomes borrowed from other runs)" if test["borrowed"] else "")
        )
    else:
        echo(f"no proposal: {_why_none(made)}")
    for refused in made.refused:
        echo(f"not taken: {refused.proposal.title}: {refused.why}")
    for one in [one for one in made.test.runs if one.unknown][:_SHOWN_RUNS]:
        echo(f"run {one.run} tells nothing: {one.unknown}", err=True)
    for run, why in list(made.skipped.items())[:_SHOWN_RUNS]:
        echo(f"run {run} is left out: {why}", err=True)
    if made.diff:
        echo(f"\n{made.diff}", nl=False)


def _why_none(made: "Improvement") -> str:
    if not made.runs:
        return f"the log holds no run of this text of {made.path.name}" + (
            f" ({len(made.skipped)} of others)" if made.skipped else ""
        )
    return f"{len(made.runs)} runs speak for no change" + (
        f", {len(made.refused)} were looked at" if made.refused else ""
    )


def _plain(made: "Improvement", accepted_by: str | None) -> dict[str, Any]:
    return {
        "program": str(made.path),
        "loop": made.loop,
        "before_sha256": made.before.sha256,
        "after_sha256": made.after.sha256,
        "changes": [one.plain() for one in made.changes],
        "refused": [{**one.proposal.plain(), "refused": one.why} for one in made.refused],
        "backtest": {**made.figures(), "by_run": [_run(one) for one in made.test.runs]},
        "skipped": dict(made.skipped),
        "drafted_by": made.drafted_by,
        "accepted_by": accepted_by,
        "diff": made.diff,
    }


def _run(one: "RunTest") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(one)
