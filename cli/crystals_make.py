"""`crystals make`, `promote`, `demote`, `rollback`, `retire`, `export`, `import`: what changes tools, each step an event.

Exit codes: 0 done, 1 refused or failed in one line, 2 wrong use.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphogen.bus.place import replace
from morphogen.schemas import MorphogenError, json_text

from .app import FAILED, settings_of
from .crystals import chosen, crystals
from .do_settings import FILE, micros, read_settings
from .pairs import pairs
from .saying import echo, word

if TYPE_CHECKING:
    from morphogen.bus import Bus
    from morphogen.bus.settings import Settings
    from morphogen.consumers.crystallizer.registry import Version
    from morphogen.consumers.crystallizer.toolsmith import Made
    from morphogen.consumers.crystallizer.worker import Crystallizer
    from morphogen.schemas import CrystalMoved

Key = Annotated[
    Path | None, typer.Option(help="A file that holds a private key, 64 hexadecimal digits: what is written is signed.")
]
Backend = Annotated[
    str | None, typer.Option(help="Who drafts where synthesis finds nothing: script, openai, llama. Default: nobody.")
]
BackendOption = Annotated[
    list[str] | None, typer.Option("--backend-option", "-o", help="An option of the backend, name=value; repeat it.")
]
Budget = Annotated[str | None, typer.Option(help="What models may cost in a day, in dollars: 0.50. Default: no bound.")]
_SIGNATURE = re.compile(r"g\d+-[0-9a-f]{16}")
LEAST = 4  # digits of a tool's name that a command which changes it asks for
_Tool = Annotated[str, typer.Argument(help="A tool (or its first characters), or TOOL@VERSION.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
_Reason = Annotated[str, typer.Option(help="Why, for the log.")]


@crystals.command()
def make(
    context: typer.Context,
    family: Annotated[str, typer.Argument(help="A family's signature, a tool, or a goal: 'sum the column {column}'.")],
    params: Annotated[
        list[str] | None, typer.Option("--param", help="A parameter of the goal as it was said, name=value; repeat it.")
    ] = None,
    model: Annotated[bool, typer.Option("--model", help="Have the backend draft at once, without synthesis.")] = False,
    backend: Backend = None,
    backend_option: BackendOption = None,
    budget: Budget = None,
    key: Key = None,
    as_json: _Json = False,
) -> None:
    """Make a tool of a family now: by synthesis, and where it finds nothing by the backend; the gauntlet judges both."""
    if model and backend is None:
        raise typer.BadParameter("--model needs a --backend")
    with at_work(context, backend, backend_option, budget, key) as (_, worker):
        signature = _signature(worker, family, pairs(params, "--param"))
        makers = ("llm",) if model else worker.toolsmith.makers
        for maker in makers:
            made = worker.make(signature, maker=maker)
            if made.ok:
                break
            if maker != makers[-1] and not as_json:
                echo(f"{maker}: {made.stage}: {word(made.reason)}")
        state = _state(worker, made)
    _tell(made, state, as_json)


@crystals.command()
def promote(
    context: typer.Context,
    tool: _Tool,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even where evidence is lacking.")] = False,
    reason: _Reason = "promoted by hand",
    as_json: _Json = False,
) -> None:
    """Have a version called. Without --anyway it needs the shadow runs and the bound that the crystallizer asks for.

    A version that was demoted goes back into shadow first, where it is to prove itself once more.
    """
    from morphogen.consumers.crystallizer.lifecycle import Life, lacking
    from morphogen.consumers.crystallizer.worker import by_hand

    with at_work(context) as (_, worker):
        meant = _meant(worker, tool)
        name, number = meant.tool, meant.number if "@" in tool else _waiting(worker, meant)
        career = worker.past.careers.versions[name, number]
        lack = lacking(career, Life())
        if lack is not None and not anyway and career.state == "shadow":
            raise MorphogenError(f"{name} version {number} is not promoted: {lack} (--anyway promotes it all the same)")
        now = "shadow" if career.state == "demoted" else "active"
        _move(worker, by_hand(worker.past, name, number, now, reason), as_json)


@crystals.command()
def demote(context: typer.Context, tool: _Tool, reason: _Reason = "demoted by hand", as_json: _Json = False) -> None:
    """Have a version called no more; the version before it does not come back by that (see rollback)."""
    _by_hand(context, tool, "demoted", reason, as_json)


@crystals.command()
def retire(context: typer.Context, tool: _Tool, reason: _Reason = "retired by hand", as_json: _Json = False) -> None:
    """Put a version away for good."""
    _by_hand(context, tool, "retired", reason, as_json)


@crystals.command()
def rollback(
    context: typer.Context, tool: _Tool, reason: _Reason = "rolled back by hand", as_json: _Json = False
) -> None:
    """Demote the active version, and bring the one before it back."""
    from morphogen.consumers.crystallizer.lifecycle import rolled_back

    with at_work(context) as (_, worker):
        name = _meant(worker, tool, version=False).tool
        moves = rolled_back(worker.past.careers.of(name), reason)
        if not moves:
            raise MorphogenError(
                f"{name} has no version to go back to: only one that was superseded, and had not failed, comes back"
            )
        _move(worker, moves, as_json)


@crystals.command("export")
def export_tool(
    context: typer.Context,
    tool: _Tool,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: TOOL-vN.crystal here.")] = None,
    key: Key = None,
    most: Annotated[int, typer.Option("--executions", min=1, help="Held-out executions to take along at most.")] = 50,
    as_json: _Json = False,
) -> None:
    """Write a version into one file, with the held-out executions that it was proven on: arguments, results, outputs."""
    from morphogen.consumers.crystallizer.packages import pack

    with at_work(context) as (_, worker):
        package = worker.package(chosen(worker.past, tool), most)
    path = output or Path(package.name)
    data = pack(package, None if key is None else private_key(key))
    replace(path, data)
    if as_json:
        row = {
            "tool": package.registered.tool, "version": package.registered.number, "file": str(path),
            "bytes": len(data), "executions": len(package.traces), "signed": key is not None,
        }  # fmt: skip
        echo(json_text(row))
        return
    signed = "unsigned" if key is None else "signed"
    echo(f"{path}: {len(data):,} bytes, {len(package.traces)} executions, {signed}")


@crystals.command("import")
def import_tool(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A package, as `export` writes it.")],
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A public key that must have signed it; repeat it. Default: those of do.toml."),
    ] = None,
    key: Key = None,
    as_json: _Json = False,
) -> None:
    """Judge a tool from another project on the executions that it brings and on our own; it begins in shadow."""
    from morphogen.consumers.crystallizer.packages import read_package
    from morphogen.consumers.crystallizer.signing import trusted_keys

    settings = settings_of(context)
    told = read_settings(settings.home / FILE, named=False)
    keys = [one.lower() for one in trust] if trust else told.trusted
    package = read_package(file, trusted=None if keys is None else trusted_keys(keys))
    with at_work(context, key=key) as (_, worker):
        made = worker.take_in(package)
        state = _state(worker, made)
    _tell(made, state, as_json)


@contextlib.contextmanager
def at_work(
    context: typer.Context,
    backend: str | None = None,
    backend_option: list[str] | None = None,
    budget: str | None = None,
    key: Path | None = None,
    **config: Any,
) -> Iterator["tuple[Bus, Crystallizer]"]:
    """Yield an open bus and a crystallizer that has read the log."""
    from morphogen.bus import Bus
    from morphogen.consumers.crystallizer.worker import Crystallizer, WorkerConfig
    from morphogen.kernels.sandbox import Sandbox

    from .crystal_drafter import drafter

    settings = settings_of(context)
    secret = None if key is None else private_key(key)
    spend = None if budget is None else micros(budget)
    with Bus.open(settings, name="crystallizer") as bus, Sandbox(pool=2) as sandbox:
        worker = Crystallizer(
            bus,
            sandbox,
            settings.home,
            drafter=drafter(backend, pairs(backend_option, "--backend-option"), settings, bus),
            key=secret,
            environment=_environment(settings),
            config=WorkerConfig(budget_microusd=spend, **config),
        )
        worker.catch_up()
        yield bus, worker


def private_key(path: Path) -> bytes:
    """Return the private key in a file: 32 bytes, or 64 hexadecimal digits. Raises MorphogenError."""
    data = path.read_bytes()[:200]
    if len(data) == 32:
        return data
    try:
        found = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        found = b""
    if len(found) != 32:
        raise MorphogenError(f"{path} holds no private key: 32 bytes, or 64 hexadecimal digits")
    return found


def cost(microusd: int | None) -> str:
    """Return what something has cost, in words."""
    if microusd is None:
        return "at a cost that nobody knows: no price is configured"
    return "for nothing" if microusd == 0 else f"for {microusd / 1e6:.6f} USD"


def _environment(settings: "Settings") -> dict[str, str]:
    from morphogen.producers.executions import environment_of

    told = read_settings(settings.home / FILE, named=False)
    return environment_of(told.packages, told.environment)


def _signature(worker: "Crystallizer", family: str, params: dict[str, Any]) -> str:
    from morphogen.schemas.goals import signature

    if family.startswith("tool_"):
        return chosen(worker.past, family).signature
    if family in worker.past.families or _SIGNATURE.fullmatch(family):
        return family
    return signature(family, params)


def _meant(worker: "Crystallizer", tool: str, *, version: bool = True) -> "Version":
    """Return the version that is to be changed: a tool is not taken for another by a digit or two."""
    return chosen(worker.past, tool, least=LEAST, version=version)


def _waiting(worker: "Crystallizer", meant: "Version") -> int:
    """Return the newest version of a tool that waits in shadow, else the one that is meant without a number."""
    shadow = worker.past.registry.shadow(meant.signature)
    return meant.number if shadow is None else shadow.number


def _by_hand(context: typer.Context, tool: str, now: str, reason: str, as_json: bool) -> None:
    from morphogen.consumers.crystallizer.worker import by_hand

    with at_work(context) as (_, worker):
        one = _meant(worker, tool)
        _move(worker, by_hand(worker.past, one.tool, one.number, now, reason), as_json)


def _move(worker: "Crystallizer", moves: "list[CrystalMoved]", as_json: bool) -> None:
    for moved in moves:
        told = worker.move(moved)
        worker.catch_up()
        if not told or worker.past.careers.versions[moved.tool, moved.number].state != moved.now:
            raise MorphogenError(
                f"{moved.tool} version {moved.number} is not {moved.now}: another process moved a version meanwhile; "
                "`morphogen crystals show` tells where it stands"
            )
        if as_json:
            row = {
                "tool": moved.tool,
                "version": moved.number,
                "was": moved.was,
                "now": moved.now,
                "reason": moved.reason,
            }
            echo(json.dumps(row))
        else:
            echo(f"{moved.tool} version {moved.number}: {moved.was} -> {moved.now}: {word(moved.reason)}")


def _state(worker: "Crystallizer", made: "Made") -> str:
    """Return the state of the version that was made, or had been before; nothing where there is none."""
    version = None if made.number is None else worker.past.registry.version(made.tool, made.number)
    return "" if version is None else version.state


def _tell(made: "Made", state: str, as_json: bool) -> None:
    if as_json:
        row = {
            "attempt": made.attempt, "tool": made.tool, "family": made.signature, "maker": made.maker,
            "version": made.number, "stage": made.stage, "reason": made.reason, "cost_microusd": made.cost_microusd,
            "before": made.before,
        }  # fmt: skip
        echo(json.dumps(row))
    elif made.ok:
        again = " already" if made.before else ""
        echo(
            f"{made.tool} version {made.number} is{again} registered by {word(made.maker)}, {cost(made.cost_microusd)}"
        )
        shadow = "it waits in shadow until enough runs beside the live mode agree"
        echo(shadow if state == "shadow" else f"it is {state}")
    else:
        again = "before: " if made.before else ""
        reason = f"{word(made.maker)}: {made.stage}: {word(made.reason)}"
        echo(f"no tool: {again}{reason} ({cost(made.cost_microusd)})", err=True)
    if not made.ok:
        raise typer.Exit(FAILED)
