"""Engineering loops built by hand, and a log in memory that a sweep records into."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops import runner
from morphogen.producers.loops.errors import EmitFailed
from morphogen.producers.loops.runner import Ended, Options
from morphogen.producers.loops.sweep.engine import sweep
from morphogen.producers.loops.sweep.plan import Plan, plan_of
from morphogen.producers.loops.sweep.reading import Reading, Said, TrialFailed, Yardstick
from morphogen.producers.loops.sweep.shell import Shell, SweepResult
from morphogen.schemas import Event, TrialFinished, TrialStarted
from morphogen.schemas.knowledge import tree

PERFORMANCE = tree.Case("Performance", (tree.FieldDecl("speed", tree.NamedType("float")),))
CORRECTNESS = tree.Case("Correctness", (tree.FieldDecl("passed", tree.NamedType("boolean")),))


class Item(Event, type="testing.sweep_item", version=1):
    """A trace item of these tests."""

    case: str
    values: dict[str, Any]
    source: str


def expr(value: Any) -> tree.Expr:
    """Return a value as the tree that the parser would make of it."""
    if isinstance(value, list):
        return tree.ListExpr(tuple(map(expr, value)))
    if isinstance(value, dict):
        return tree.MapExpr(tuple(tree.Property(key, expr(each)) for key, each in value.items()))
    if isinstance(value, tree.Node):
        return value  # type: ignore[return-value]
    return tree.Literal(value)


def props(values: Mapping[str, Any]) -> tuple[tree.Property, ...]:
    """Return keys and values as properties."""
    return tuple(tree.Property(key, expr(value)) for key, value in values.items())


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """What makes a plan: `parameters` by name, and settings by keyword."""

    def make(
        parameters: Mapping[str, Any],
        *,
        cases: tuple[tree.Case, ...] = (PERFORMANCE, CORRECTNESS),
        invariants: tuple[tree.Invariant, ...] = (),
        budgeted: int | None = None,
        **settings: Any,
    ) -> Plan:
        settings = {"metric": "Performance.speed", **settings}
        if "cmd" not in settings:
            settings.setdefault("tool", "unused:function")
        loop = tree.EngineeringLoop("Tune", props(parameters), tree.Measure(props(settings)))
        system = tree.System(
            "Test", variants=(tree.Variant("T", cases),), invariants=invariants, engineering_loops=(loop,)
        )
        return plan_of(loop, tree.Module(systems=(system,)), budget=budgeted)

    return make


Function = Callable[[dict[str, Any]], Any]


@dataclass
class Memory:
    """A log in memory; `fuse` is how many writes it takes before it fails, as a killed process would."""

    events: list[Event] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    fuse: int | None = None

    def record(self, *events: Event) -> int:
        if self.fuse is not None:
            if self.fuse == 0:
                raise SystemExit(137)
            self.fuse -= 1
        self.events += events
        return len(self.events)

    def sweep(self, plan: Plan, function: Function, **shell: Any) -> SweepResult:
        """Carry a plan out with a Python function of this process; it gives a number, or a map of items by case."""

        class Meter:
            def read(meter, config: dict[str, Any]) -> Reading:
                self.measured.append(config)
                found = function(config)
                said = found if isinstance(found, list) else [Said("Performance", {"speed": found})]
                return Yardstick(plan.case, plan.field, plan.cases).read(said, config, 0.0)

            def close(meter) -> None:
                pass

        def item(case: str, values: Mapping[str, Any], origin: str, source: str) -> Event:
            if "unfit" in values:
                raise EmitFailed("field 'unfit' is not declared")
            return Item(case=case, values=dict(values), source=source)

        def make(check: Callable[[], None]) -> Meter:
            return Meter()

        return sweep(plan, Shell(record=self.record, item=item, meter=make, past=list(self.events), **shell))

    def finished(self) -> list[TrialFinished]:
        return [one for one in self.events if isinstance(one, TrialFinished)]

    def started(self) -> list[TrialStarted]:
        return [one for one in self.events if isinstance(one, TrialStarted)]


@pytest.fixture
def memory() -> Memory:
    """An empty log."""
    return Memory()


@pytest.fixture
def fresh() -> type[Memory]:
    """What makes a further log."""
    return Memory


@pytest.fixture
def failing() -> Callable[[str], Any]:
    """What raises as a meter does where a configuration cannot be measured."""

    def fail(reason: str) -> Any:
        raise TrialFailed(reason)

    return fail


@pytest.fixture
def binary() -> Callable[[Any, str, Any], tree.Binary]:
    """What makes `left op right` of values and trees."""

    def make(left: Any, op: str, right: Any) -> tree.Binary:
        return tree.Binary(op, expr(left), expr(right))

    return make


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    """A bus on a broker of its own."""
    with Bus.open(settings) as opened:
        yield opened


@dataclass
class Runs:
    """Programs in a folder, run in this process or in one of their own, and what the log then holds of them."""

    bus: Bus
    folder: Path

    def write(self, text: str, tool: str = "", name: str = "program.mk") -> Path:
        """Write a program, and the module `measured` that its tool is in."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "measured.py").write_text(tool)
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, path: Path, run: str = "r", *, live: bool = True, **options: Any) -> Ended:
        """Run a program in this process."""
        return runner.start(self.bus, path, run=run, options=Options(live=live, workspace=self.folder, **options))

    def events(self, run: str = "r", family: str = "sweep") -> list[Any]:
        """Return the events of a family, as every reader of the log sees them."""
        return [seen.event for seen in self.bus.events(run=run, family=family)]

    def trials(self, run: str = "r") -> list[TrialFinished]:
        """Return the trials of a run."""
        return [one for one in self.events(run) if isinstance(one, TrialFinished)]

    def process(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `morphogen loop ...` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "morphogen.cli", "loop", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, trials: int, process: "subprocess.Popen[str]", run: str = "r") -> None:
        """Wait until so many trials are on record."""
        end = time.monotonic() + 60
        while len(self.trials(run)) < trials:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def runs(bus: Bus, tmp_path: Path) -> Runs:
    """What runs programs in a folder of their own."""
    return Runs(bus, tmp_path / "workspace")
