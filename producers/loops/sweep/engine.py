"""The sweep itself: choose, measure, record, until there is a reason to stop.

What was measured goes into the log between trials, not beside one: in one acknowledged write with its trace items and the
start of the next trial, and where trials are short, in one write for half a second of them. A process that is killed
loses at most that, and what it was measuring; whoever goes on reads the log and measures the rest.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

import msgspec

from morphogen.schemas import Event, SweepFinished, SweepStarted, TrialFinished, TrialStarted
from morphogen.schemas.knowledge.errors import KnowledgeError

from ..errors import EmitFailed, Interrupted, InvariantViolated, one_line
from .choice import Chooser
from .compare import Interval, interval, ratios
from .errors import NothingGood
from .meters import Meter
from .plan import Plan
from .reading import TrialFailed
from .shell import Shell, SweepResult
from .space import Config
from .standing import Standing, fold
from .trial import Outcome, Trial, measure

_GLANCE = 0.1  # seconds between looks at whether the process was asked to stop
_P = ParamSpec("_P")
_T = TypeVar("_T")
_LONG = 1.0  # seconds after which a write is made beside a trial that goes on for so long
_MANY = 256  # events that make a write, however short their trials were
_TOGETHER = 0.5  # seconds of short trials that share a write: a write takes milliseconds, and waits for the disk


def sweep(plan: Plan, shell: Shell) -> SweepResult:
    """Carry out a plan, or what is left of it. Raises NothingGood where no configuration measured well."""
    past = list(shell.past)
    trials = [one for one in past if isinstance(one, TrialFinished)]
    standing = fold(plan.name, trials, maximize=plan.maximize, paired=plan.interleave, alpha=plan.alpha)
    ended = next((one for one in past if isinstance(one, SweepFinished)), None)
    if ended is None:
        outbox: list[Event] = [] if any(isinstance(one, SweepStarted) for one in past) else [started(plan)]
        ended = _Running(plan, shell, standing, outbox).run()
    if ended.best is None:
        raise NothingGood(_why_nothing(plan, standing, ended))
    return SweepResult(plan, ended, standing)


def started(plan: Plan) -> SweepStarted:
    """Return the event that says what a sweep is to do."""
    return SweepStarted(
        sweep=plan.name,
        parameters=plan.space.plain(),
        sampler=plan.sampler,
        metric=plan.metric,
        objective="maximize" if plan.maximize else "minimize",
        seed=plan.seed,
        budget=plan.budget,
        repeats=plan.repeats,
        warmup=plan.warmup,
        workers=plan.workers,
        size=plan.space.size,
        baseline=plan.baseline,
    )


class _Here(Executor):
    """Does what it is given at once, in this thread: no other has to be woken between two trials."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Call, and return the result as a future that is done."""
        future: Future[_T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Running:
    """A sweep under way in this process."""

    def __init__(self, plan: Plan, shell: Shell, standing: Standing, outbox: list[Event]) -> None:
        self._plan, self._shell, self._standing, self._outbox = plan, shell, standing, outbox
        self._stopping = threading.Event()
        self._meters: SimpleQueue[Meter] = SimpleQueue()
        self._spent = sum(one.seconds for one in standing.trials.values())
        self._chooser = Chooser(plan, shell.check)
        self._sent = float("-inf")

    def run(self) -> SweepFinished:
        """Measure until there is a reason to stop, and return how it ended."""
        meters = [self._shell.meter(self._glance) for _ in range(self._plan.workers)]
        for meter in meters:
            self._meters.put(meter)
        many = self._plan.workers > 1
        pool: Executor = ThreadPoolExecutor(self._plan.workers, "morphogen sweep") if many else _Here()
        try:
            reason = self._search(pool)
            confirmed = pool.submit(self._confirm) if self._plan.confirm else None
            while confirmed is not None and not wait([confirmed], _GLANCE).done:
                self._shell.check()
            ended = self._ended(reason, confirmed.result() if confirmed else None)
            self._put(ended)
            return ended
        except Interrupted:
            self._send()
            raise
        finally:
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for meter in meters:
                with contextlib.suppress(Exception):
                    meter.close()
            pool.shutdown(wait=True)

    def _search(self, pool: Executor) -> str:
        running: dict[Future[Outcome], Trial] = {}
        number = max((one.number for one in self._standing.trials.values()), default=0)
        reason: str | None = None
        self._tell()
        while True:
            starting: list[Trial] = []
            while len(running) + len(starting) < self._plan.workers:
                busy = [*running.values(), *starting]
                reason = reason or self._reason(len(busy))
                if reason is not None:
                    break
                config = self._chooser.next(self._standing, [trial.config for trial in busy])
                if config is None:
                    reason = None if busy else "exhausted"
                    break
                number += 1
                starting.append(self._trial(number, config))
            for trial in starting:
                self._outbox.append(
                    TrialStarted(
                        sweep=self._plan.name, number=trial.number, key=trial.key, config=trial.config,
                        baseline=trial.baseline,
                    )
                )  # fmt: skip
            late = self._shell.clock() - self._sent >= (_TOGETHER if starting else _LONG)
            if late or len(self._outbox) >= _MANY or not (starting or running):
                self._send()
            running |= {pool.submit(self._measure, trial): trial for trial in starting}
            if not running:
                return reason or "exhausted"
            done, _ = wait(running, _GLANCE, FIRST_COMPLETED)
            self._shell.check()
            for future in done:
                del running[future]
                self._count(future.result())

    def _trial(self, number: int, config: Config) -> Trial:
        best = self._standing.best
        return Trial(
            number=number,
            config=config,
            baseline=self._plan.baseline is not None and self._standing.baseline is None,
            best=() if best is None else tuple(self._standing.samples(best)),
        )

    def _measure(self, trial: Trial) -> Outcome:
        meter = self._meters.get()
        try:
            return measure(self._plan, trial, meter, host=self._shell.host, check=self._glance)
        finally:
            self._meters.put(meter)

    def _count(self, outcome: Outcome) -> None:
        """Take a trial into the standing, and what is to be said of it into the outbox."""
        trial = outcome.finished
        source = f"{self._plan.name}#{trial.number}"
        items: list[Event] = []
        try:
            items = [self._shell.item(one.case or "", one.values, one.origin, source) for one in outcome.items]
            if trial.value is not None:
                items += self._shell.also(trial)
        except (EmitFailed, KnowledgeError) as error:
            items, trial = [], _failed(trial, one_line(error))
        self._spent += trial.seconds
        best = self._standing.add(trial)
        self._outbox += [*items, trial, *([best] if best else [])]
        if trial.baseline and self._plan.interleave and trial.state != "measured":
            self._send()
            raise NothingGood(f"sweep {self._plan.name}: the baseline could not be measured: {trial.reason}")
        self._tell()

    def _reason(self, busy: int) -> str | None:
        plan, standing = self._plan, self._standing
        if plan.budget is not None and len(standing.trials) + busy >= plan.budget:
            return "budget"
        if standing.hits(plan.target):
            return "target"
        if plan.patience is not None and standing.since_best >= plan.patience:
            return "patience"
        if plan.time is not None and self._spent >= plan.time:
            return "time"
        return None

    def _confirm(self) -> Interval | None:
        """Measure best and baseline in turn, and return the interval of how many times better the best is."""
        best, plan = self._standing.best, self._plan
        if best is None or plan.baseline is None or best.baseline:
            return None
        values: list[float] = []
        base: list[float] = []
        meter = self._meters.get()
        try:
            for turn in range(plan.confirm):
                pair = [(best.config, values), (plan.baseline, base)]
                for config, sink in pair if turn % 2 == 0 else reversed(pair):
                    self._glance()
                    sink.append(meter.read(config).value)
        except TrialFailed:
            return None
        finally:
            self._meters.put(meter)
        found = ratios(values, base, maximize=plan.maximize)
        return interval(found) if found else None

    def _ended(self, reason: str, confirmed: Interval | None) -> SweepFinished:
        standing, best = self._standing, self._standing.best
        speedup = confirmed.median if confirmed else None
        if speedup is None and best is not None:
            speedup = standing.speedup(best)
        return SweepFinished(
            sweep=self._plan.name,
            reason=reason,
            trials=len(standing.trials),
            measured=standing.count("measured"),
            failed=standing.count("failed"),
            rejected=standing.count("rejected"),
            pruned=standing.count("pruned"),
            excluded=self._chooser.excluded,
            best=None if best is None else best.number,
            config=None if best is None else best.config,
            value=None if best is None else best.value,
            speedup=speedup,
            low=confirmed.low if confirmed else None,
            high=confirmed.high if confirmed else None,
        )

    def _put(self, *events: Event) -> None:
        self._outbox += events
        self._send()

    def _send(self) -> None:
        if not self._outbox:
            return
        events, self._outbox = self._outbox, []
        self._sent = self._shell.clock()
        # A broken invariant is what rejects a trial here; the events are in the log all the same.
        with contextlib.suppress(InvariantViolated):
            self._shell.record(*events)

    def _tell(self) -> None:
        plan, standing = self._plan, self._standing
        limits = [each for each in (plan.budget, plan.space.size) if each is not None]
        best = standing.best.value if standing.best else None
        text = "nothing good yet" if best is None else f"best {plan.metric} {best:.4g}"
        self._shell.progress(len(standing.trials), min(limits) if limits else None, text)

    def _glance(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("the sweep was stopped")
        self._shell.check()


def _failed(trial: TrialFinished, reason: str) -> TrialFinished:
    return msgspec.structs.replace(trial, state="failed", value=None, values=[], paired=[], reason=reason)


def _why_nothing(plan: Plan, standing: Standing, ended: SweepFinished) -> str:
    if not standing.trials:
        return (
            f"sweep {plan.name}: the constraints allow none of its configurations ({ended.excluded} excluded): "
            "loosen a constraint or widen a parameter"
        )
    reasons = Counter(one.reason or one.state for one in standing.trials.values())
    common, times = reasons.most_common(1)[0]
    return f"sweep {plan.name}: none of {ended.trials} configurations measured well; {times} times: {common}"
