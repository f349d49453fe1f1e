"""Propose, check, back-test: one change after the other, as long as one helps and none changes how a run ends."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Event
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.program import Program, load, load_text
from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import AgentLoop, Module, Task

from ..llm import Backend, Budget
from ..tools import Toolbox
from .backtest import BackTest, backtest
from .dead import dead_steps
from .draft import draft
from .edits import apply_edits, unified_diff
from .errors import ImproveError
from .history import RecordedRun, find_runs, read_runs
from .narrow import narrow
from .order import reordered_steps
from .proposal import DRAFT, Proposal
from .statistics import figures

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_ROUNDS = 50  # changes of one call


@dataclass(frozen=True, slots=True)
class Refused:
    """A change that was proposed and not taken."""

    proposal: Proposal
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """What came out: the program before and after, the changes between them, and what the recorded runs say."""

    path: Path
    loop: str | None
    before: Program
    after: Program
    changes: tuple[Proposal, ...]
    refused: tuple[Refused, ...]
    test: BackTest
    runs: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    drafted_by: str | None = None

    @property
    def diff(self) -> str:
        """The change as a unified diff, empty where there is none."""
        return unified_diff(self.before.text, self.after.text, self.path.name)

    def figures(self) -> dict[str, Any]:
        """Return what a policy may ask for."""
        return {**self.test.figures(), "changes": len(self.changes)}


def improve(
    bus: "Bus",
    path: Path,
    *,
    loop: str | None = None,
    runs: Sequence[str] = (),
    backend: Backend | None = None,
    budget: Budget | None = None,
    tools: Toolbox | None = None,
) -> Improvement:
    """Improve a program file by what its recorded runs show; nothing is written.

    `runs` are names or patterns, else all runs of a file of this name; only runs of this very text count. With a
    backend a model drafts a change after the rules have had their turn. Raises KnowledgeError, ImproveError, UnknownRun.
    """
    signatures = (tools or Toolbox.standard()).signatures
    before = load(path, tools=signatures)
    if loop is not None:
        before.find_loop(loop)
    found = read_runs(bus, find_runs(bus, runs, program=str(path)))
    chosen, skipped = _of_this(found, before, loop)
    made = _Improver(before, chosen, signatures, bus)
    made.by_rules()
    drafted = None
    if backend is not None and chosen:
        drafted = made.by_model(backend, budget)
    return Improvement(
        path=path,
        loop=loop,
        before=before,
        after=made.now,
        changes=tuple(made.taken),
        refused=tuple(made.refused.values()),
        test=made.test,
        runs=tuple(run.run for run in chosen),
        skipped=skipped,
        drafted_by=drafted,
    )


class _Improver:
    """A program under change."""

    def __init__(
        self, before: Program, runs: Sequence[RecordedRun], signatures: Mapping[str, Signature], bus: "Bus"
    ) -> None:
        self._before = before
        self._runs = runs
        self._signatures = signatures
        self._bus = bus
        self.figures = figures(runs)
        self.now = before
        self.test = self._tested(before)
        self.taken: list[Proposal] = []
        self.refused: dict[str, Refused] = {}

    def by_rules(self) -> None:
        """Take every change that the rules propose and the runs speak for."""
        for _ in range(_ROUNDS):
            fresh = (one for one in self._proposals() if one.title not in self.refused)
            if not any(self._try(proposal, apply_edits(self.now.text, proposal.edits)) for proposal in fresh):
                return

    def by_model(self, backend: Backend, budget: Budget | None) -> str | None:
        """Take what a model drafts, where it helps; return the backend's name if so."""
        try:
            made = draft(
                self.now.text, self.figures, self._runs, backend, check=self._load, record=self._record, budget=budget
            )
        except ImproveError as error:
            self.refused["draft"] = Refused(Proposal(kind=DRAFT, title="a model's draft", why="none came"), str(error))
            return None
        proposal = Proposal(kind=DRAFT, title=f"what {backend.name} drafted", why=made.why)
        return backend.name if self._try(proposal, made.text) else None

    def _try(self, proposal: Proposal, text: str) -> bool:
        """Take a change if it checks, helps, and no run ends otherwise; else keep the reason."""
        why: str | None
        if text == self.now.text:
            self.refused[proposal.title] = Refused(proposal, "it changes nothing")
            return False
        try:
            changed = self._load(text)
        except KnowledgeError as error:
            why = f"the changed program does not check: {error}"
        else:
            test = self._tested(changed)
            why = self._fault(changed, test)
            if why is None:
                self.now, self.test = changed, test
                self.taken.append(proposal)
                return True
        self.refused[proposal.title] = Refused(proposal, why)
        return False

    def _fault(self, changed: Program, test: BackTest) -> str | None:
        """Return why a change cannot be taken."""
        more = len(changed.warnings) - len(self.now.warnings)
        if more > 0:
            return f"the check warns of {more} more things: {changed.warnings[-1].message}"
        lost = [one for one in test.runs if one.unknown and one.run in {other.run for other in self.test.judged}]
        if lost:
            return f"nobody can tell how {len(lost)} of {len(test.runs)} runs would have ended: {lost[0].unknown}"
        if test.verdict_same is None:
            reasons = sorted({one.unknown for one in test.runs if one.unknown})
            return f"no recorded run can tell how it would have ended: {'; '.join(reasons[:3])}"
        if not test.verdict_same:
            others = [one.run for one in test.judged if not one.verdict_same]
            return f"{len(others)} of {len(test.judged)} runs would have ended otherwise, such as {others[0]}"
        if not _gains(self.test, test):
            return f"it would have saved nothing over {len(test.judged)} runs"
        return None

    def _load(self, text: str) -> Program:
        return load_text(text, self._before.path, tools=self._signatures, used=self._before.used)

    def _tested(self, program: Program) -> BackTest:
        return backtest(self._before, program, self._runs, signatures=self._signatures, bus=self._bus)

    def _proposals(self) -> Iterator[Proposal]:
        source, module = self.now.text, parse(self.now.text, self.now.path).module
        names = {run.loop for run in self._runs}
        loops: list[Task | AgentLoop] = [*module.tasks]
        for system in module.systems:
            loops += [*system.tasks, *system.agent_loops]
        for loop in loops:
            if loop.name in names:
                yield from dead_steps(source, module, loop, self.figures, self._signatures)
                yield from reordered_steps(source, loop, self.figures, self._signatures)
        yield from _narrowed(source, module, self._runs)

    def _record(self, event: Event) -> None:
        """Keep what a model was asked in the log, under no run."""
        body = hashlib.sha256(event.encode()).hexdigest()[:32]
        self._bus.emit(event, msg_id=f"improve.{self._before.sha256[:16]}.{body}", label="improve")


def _narrowed(source: str, module: Module, runs: Sequence[RecordedRun]) -> Iterator[Proposal]:
    for system in module.systems:
        for loop in system.engineering_loops:
            yield from narrow(source, system, loop, runs)


def _gains(before: BackTest, after: BackTest) -> bool:
    """Tell whether a change saves anything that an earlier one did not, and loses nothing in its place."""
    was, now = before.figures(), after.figures()
    names = ("saved_seconds", "saved_usd", "saved_trials", "saved_tokens", "saved_steps")
    gained = [now[name] - was[name] for name in names]
    return gained[0] >= -1e-9 and gained[1] >= 0 and any(gain > 1e-9 for gain in gained)


def _of_this(
    runs: Sequence[RecordedRun], program: Program, loop: str | None
) -> tuple[list[RecordedRun], dict[str, str]]:
    chosen, skipped = [], {}
    for run in runs:
        if run.sha256 != program.sha256:
            skipped[run.run] = "it ran another text of the program"
        elif loop is not None and run.loop != loop:
            skipped[run.run] = f"it is of loop {run.loop}"
        else:
            chosen.append(run)
    return chosen, skipped
