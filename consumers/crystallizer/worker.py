"""The crystallizer at work: it reads the log, moves versions through their life, and makes tools of what is done often and well.

Each round takes the most urgent candidates within a budget that is kept by the log itself, so a restart does not forget
what was spent. A kill at any moment is taken up where the log stands: what was drafted is not drafted again, what was
asked of a model is not asked twice. A tool is made by one process of a data folder at a time.
"""

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from morphogen.bus.errors import BusError, MessageTooLarge
from morphogen.consumers.executions import Trace, tool_name
from morphogen.kernels.sandbox import BadJob, Capabilities, Sandbox, SandboxError, value_sha256
from morphogen.kernels.synthesis import Budget
from morphogen.schemas import CrystalMoved, CrystalRegistered, Event

from .careers import Career
from .drafting import Drafter
from .drafts import SYNTHESIS
from .errors import Busy, CrystalError, DraftOverBudget, DraftUnanswered, NotMade, unforeseen
from .gauntlet import GauntletConfig, promoted, shadowed
from .guards import missed
from .lifecycle import DAY_NS, FELL, Again, Life, Newer, again, decide
from .moves import move
from .packages import Package, brought_by, pack, package_of, unpack
from .past import RUN, Past
from .planning import AGAIN, REASONED, chosen, learnable, tried, worth_trying
from .registry import Version
from .tape import Tape
from .toolsmith import Made, Toolsmith

if TYPE_CHECKING:
    from morphogen.bus import Bus

PAUSE_NS = 600 * 10**9  # before a model is asked again where it gave no reply, or the budget did not bear it
REPLAYED = 20  # newest executions that an active version is held against
_log = logging.getLogger("morphogen.crystallizer")


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker may do. `budget_microusd` is for models, in any `budget_days` on end; None is no bound."""

    top: int = 3
    budget_microusd: int | None = None
    budget_days: float = 1.0
    repairs: int = 1
    life: Life = field(default_factory=Life)
    gauntlet: GauntletConfig | None = None
    synthesis: Budget | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round did. `put_off` says, by family, why nothing was made of it now."""

    moved: tuple[CrystalMoved, ...] = ()
    made: tuple[Made, ...] = ()
    put_off: Mapping[str, str]


class Crystallizer:
    """Makes tools and sees to their lives, over an open bus.

    `home` is the data folder, where locks lie. `drafter` asks a model where synthesis finds nothing; without one, nothing is
    ever spent.
    """

    def __init__(
        self,
        bus: "Bus",
        sandbox: Sandbox,
        home: Path,
        *,
        capabilities: Capabilities | None = None,
        drafter: Drafter | None = None,
        key: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        config: WorkerConfig | None = None,
    ) -> None:
        self.past = Past()
        self.config = config or WorkerConfig()
        self._bus, self._sandbox, self._home, self._capabilities = bus, sandbox, home, capabilities
        self.toolsmith = Toolsmith(
            self.past,
            self.write,
            self.catch_up,
            sandbox=sandbox,
            capabilities=capabilities,
            drafter=drafter,
            key=key,
            gauntlet=self.config.gauntlet,
            budget=self.config.synthesis,
            repairs=self.config.repairs,
            environment=environment,
        )
        self._later: dict[str, int] = {}  # families that are not tried before a time
        self._newer: dict[tuple[str, int, int], Newer] = {}

    def write(self, event: Event, name: str) -> bool:
        """Store an event of the crystallizer under a name; return whether the name was new. The log takes each once.

        That holds for ever, as each has a subject of its own: also for a process that was frozen for hours in between.
        """
        return not self._bus.emit(event, run=RUN, label=None, msg_id=f"crystal.{name}").duplicate

    def catch_up(self) -> int:
        """Read what the log has come to hold; return how many events that was."""
        return self.past.catch_up(self._bus)

    def move(self, moved: CrystalMoved) -> bool:
        """Tell the log that a version changes its state; return whether it was told now.

        Of two processes that decide on the same past one alone moves it: for the other this is false.
        """
        count = self.past.moves.get((moved.tool, moved.number), 0)
        return self.write(moved, f"moved.{moved.tool}.{moved.number}.{count}")

    def make(self, signature: str, *, maker: str = SYNTHESIS, by: str = "manual", after_ns: int = 0) -> Made:
        """Make a version of a family's tool now, within the budget. Raises NotMade, DraftOverBudget, Busy."""
        with self._alone(tool_name(signature)):
            self.catch_up()
            made = self.toolsmith.make(
                signature, maker=maker, by=by, left_microusd=self.left(self.past.clock_ns), after_ns=after_ns
            )
            self.catch_up()
        return made

    def take_in(self, package: Package) -> Made:
        """Judge and register a tool from another project, and keep its package as a blob. Raises Busy, BadPackage."""
        data = pack(package)
        with self._alone(package.registered.tool):
            self.catch_up()
            made = self.toolsmith.take_in(package, lambda: self._bus.blobs.put(data))
            if made.ok and made.before:
                self._bus.blobs.put(data)  # somebody may have taken it away since
            self.catch_up()
        return made

    def package(self, version: Version, most: int = 50) -> Package:
        """Return the package of a version, with what it came with where it was imported. Raises BadPackage."""
        blob = brought_by(version)
        brought = None
        if blob is not None and self._bus.blobs.exists(blob):
            brought = unpack(self._bus.blobs.get(blob))
        return package_of(self.past, version, most, brought)

    def left(self, now_ns: int) -> int | None:
        """Return what models may still cost at a time of the broker's clock, in micro-dollars; None is no bound."""
        if self.config.budget_microusd is None:
            return None
        since = now_ns - int(self.config.budget_days * DAY_NS)
        return max(0, self.config.budget_microusd - self.past.spending.since(since))

    def round(self, now_ns: int | None = None) -> Round:
        """Read the log, move versions, and make what is most urgent; the broker's clock tells the time unless `now_ns` does."""
        self.catch_up()
        now_ns = self.past.clock_ns if now_ns is None else now_ns
        put_off: dict[str, str] = {}
        moved = list(self._moves(now_ns, put_off))
        if moved:
            self.catch_up()
        made: list[Made] = []
        for signature, makers, by, after_ns in self._work(now_ns, put_off):
            if self._later.get(signature, 0) > now_ns:
                continue
            for maker in makers:
                one = self._made(signature, maker, by, after_ns, now_ns, put_off)
                if one is None:
                    break
                if not one.before:
                    made.append(one)
                if one.ok:
                    break
        return Round(moved=tuple(moved), made=tuple(made), put_off=put_off)

    def _made(
        self, signature: str, maker: str, by: str, after_ns: int, now_ns: int, put_off: dict[str, str]
    ) -> Made | None:
        """Return what an attempt came to; None where it is put off. Only a log that cannot be had ends the round."""
        with self._apart(signature, put_off):
            try:
                return self.make(signature, maker=maker, by=by, after_ns=after_ns)
            except (NotMade, Busy) as reason:
                put_off[signature] = str(reason)
                if not isinstance(reason, DraftUnanswered | DraftOverBudget):
                    return None
                _log.warning("%s: %s", signature, reason)
        self._later[signature] = now_ns + PAUSE_NS
        return None

    @contextlib.contextmanager
    def _apart(self, signature: str, put_off: dict[str, str]) -> Iterator[None]:
        """Put a family off by whatever goes wrong with it, as it does not end the service of all others."""
        try:
            yield
        except (CrystalError, SandboxError, MessageTooLarge) as error:
            put_off[signature] = str(error)
        except BusError:
            raise
        except Exception as error:  # noqa: BLE001  told
            put_off[signature] = f"unexpected {unforeseen(error)}"
            _log.debug("%s", signature, exc_info=True)
        else:
            return
        _log.error("%s: %s", signature, put_off[signature])

    def run(self, stop: threading.Event, *, every: float = 10.0, told: Callable[[Round], None] | None = None) -> None:
        """Do round after round, `every` seconds apart, until `stop` is set; `told` hears of those that did something."""
        while not stop.is_set():
            try:
                done = self.round()
            except BusError as error:
                _log.error("the log cannot be read or written, this round is put off: %s", error)
            else:
                if told is not None and (done.moved or done.made):
                    told(done)
            stop.wait(every)

    def _moves(self, now_ns: int, put_off: dict[str, str]) -> Iterator[CrystalMoved]:
        for tool in self.past.careers.tools():
            versions = self.past.careers.of(tool)
            signature, decided = versions[0].signature, list[CrystalMoved]()
            with self._apart(signature, put_off):
                decided = self._decided(signature, versions, now_ns)
            for moved in decided:
                if moved.was == "shadow" and moved.now != "retired":
                    self._checked(next(one for one in versions if one.number == moved.number))
                if not self.move(moved):
                    break  # another process has moved it meanwhile: what is left is decided anew
                yield moved

    def _decided(self, signature: str, versions: list[Career], now_ns: int) -> list[CrystalMoved]:
        family = self.past.families.family(signature)
        used = None if family is None else family.last_ns
        active = next((one for one in versions if one.state == "active"), None)
        newer = None if active is None else self.newer(active)
        return decide(versions, now_ns=now_ns, family_used_ns=used, newer=newer, life=self.config.life)

    def _checked(self, one: Career) -> None:
        """Tell the last stages of the gauntlet, with what the runs beside the live mode have shown."""
        life = self.config.life
        config = GauntletConfig(shadows=life.shadows, promote_lower=life.promote_lower)
        for stage in (
            shadowed(one.agreed, one.shadows, config),
            promoted(one.replayed, one.agreed, one.shadows, config),
        ):
            self.write(stage.event(one.attempt, 0), f"{one.attempt}.checked.{stage.name}.{one.shadows}")
            if not stage.ok:
                return

    def _work(self, now_ns: int, put_off: dict[str, str]) -> list[tuple[str, list[str], str, int]]:
        """Return what to make, in order: (family, makers, who asks, after which time its executions began)."""
        anew = [
            (career.signature, makers, AGAIN, career.born_ns if why.newer_only else 0)
            for career, why in self.outdated(put_off)
            if (makers := self._able(career, why))
        ]
        first = chosen(
            self.past.families,
            self.past.registry,
            self.toolsmith.makers,
            self.config.top,
            since_ns=now_ns - int(self.config.life.retire_days * DAY_NS),
            retired_ns={
                one.signature: one.moved_ns for one in self.past.careers.versions.values() if one.state == "retired"
            },
        )
        return [*anew, *((one.signature, makers, "auto", 0) for one, makers in first)][: self.config.top]

    def outdated(self, put_off: dict[str, str] | None = None) -> list[tuple[Career, Again]]:
        """Return the tools that newer executions speak against, by their newest version, and why.

        `put_off` takes, by family, what nobody foresaw.
        """
        found = []
        for tool in self.past.careers.tools():
            newest = self.past.careers.of(tool)[-1]
            with self._apart(newest.signature, {} if put_off is None else put_off):
                why = again(newest, self.newer(newest), self.config.life)
                if why is not None:
                    found.append((newest, why))
        return found

    def newer(self, career: Career) -> Newer:
        """Return what the executions since a version was registered say of it; the newest are replayed on it."""
        family = self.past.families.family(career.signature)
        version = self.past.registry.version(career.tool, career.number)
        since = [] if family is None else learnable(family, career.born_ns, modes=REASONED)
        if version is None or len(since) < self.config.life.newer or career.state == "retired":
            return Newer(successes=len(since))
        key = (career.tool, career.number, len(since))
        if key not in self._newer:
            self._newer = {one: said for one, said in self._newer.items() if one[:2] != key[:2]}
            self._newer[key] = self._compared(version.made, since)
        return self._newer[key]

    def _compared(self, made: CrystalRegistered, since: list[Trace]) -> Newer:
        guarded = [one for one in since if missed(made.guards, one.params, one.environment) is None]
        replayed = guarded[-REPLAYED:]
        then = [self.past.families.trace(str(one)) for one in made.provenance.get("made_from") or ()]
        kept = [one for one in then if one is not None and one.kept]
        return Newer(
            successes=len(since),
            replayed=len(replayed),
            differed=sum(differs(made, one, self._sandbox, self._capabilities) is not None for one in replayed),
            unguarded=len(since) - len(guarded),
            steps_then=_mean([len(one.tools) for one in kept]),
            steps_now=_mean([len(one.tools) for one in since]),
            ns_then=_mean([one.duration_ns for one in kept if one.duration_ns is not None]),
            ns_now=_mean([one.duration_ns for one in since if one.duration_ns is not None]),
        )

    def _able(self, career: Career, why: Again) -> list[str]:
        family = self.past.families.family(career.signature)
        if family is None:
            return []
        count = len(learnable(family, career.born_ns if why.newer_only else 0))
        attempts = self.past.registry.attempts.values()
        return [
            maker
            for maker in self.toolsmith.makers
            if worth_trying(count, tried(attempts, career.signature, maker, anew=True))
        ]

    @contextlib.contextmanager
    def _alone(self, tool: str) -> Iterator[None]:
        """Hold a tool for this process; the kernel lets it go when the process ends. Raises Busy."""
        folder = self._home / "crystallizer"
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder / f"{tool}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy(f"another process is making {tool}: wait for it to end, then try again") from None
            yield
        finally:
            os.close(held)


def differs(
    made: CrystalRegistered, trace: Trace, sandbox: Sandbox, capabilities: Capabilities | None = None
) -> str | None:
    """Say how a version does another thing than an execution did; None where it does the same. Nothing is done for real."""
    tape = Tape(trace.tools, capabilities)
    try:
        outcome = sandbox.run(made.source, dict(trace.params), entry=made.entry, capabilities=tape.capabilities)
    except BadJob as error:
        return str(error)
    if (fault := tape.fault()) is not None:
        return fault
    if outcome.error is not None:
        return f"{outcome.error.type}: {outcome.error.message}"
    if value_sha256(outcome.value) != value_sha256(trace.output):
        return f"it gives {repr(outcome.value)[:200]}, and the execution gave {repr(trace.output)[:200]}"
    return None


def by_hand(past: Past, tool: str, number: int, now: str, reason: str) -> list[CrystalMoved]:
    """Return the moves of a person's decision: the version that is active leaves first where another comes.

    Raises NotMade where there is no such version, IllegalMove where it cannot be moved so.
    """
    careers = {one.number: one for one in past.careers.of(tool)}
    chosen_one = careers.get(number)
    if chosen_one is None:
        raise NotMade(f"{tool} has no version {number}: `morphogen crystals list` shows what there is")
    if reason.startswith(FELL):
        reason = f"by hand: {reason}"  # as it is, it would be read as a decision of `decide`
    moves = [_told(chosen_one, now, reason)]
    active = next((one for one in careers.values() if one.state == "active"), None)
    if now == "active" and active is not None and active.number != number:
        moves.insert(0, _told(active, "superseded", f"version {number} takes its place: {reason}"))
    return moves


def _told(one: Career, now: str, reason: str) -> CrystalMoved:
    return move(
        one.tool,
        one.number,
        one.state,
        now,
        reason,
        trials=one.trials,
        successes=one.successes,
        lower=one.lower(),
    )


def _mean(values: list[int]) -> float | None:
    return fmean(values) if values else None
