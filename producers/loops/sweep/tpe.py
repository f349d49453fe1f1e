"""Which configuration comes next, by what was measured: Optuna's tree-structured Parzen estimator.

Optuna keeps nothing here. Its study is made from the trials in the log, and its chance is seeded from how many there are,
so that a resumed sweep proposes what an uninterrupted one would have. Axes of numbers are given to it as whole places
(so that neighbours count as neighbours), all others as categories. Until there are enough trials to learn from, configurations
come at random; where it repeats itself, they come from around the best, and then at random.

Bergstra, Bardenet, Bengio and Kégl (2011), Algorithms for Hyper-Parameter Optimization; the multivariate form is that of
Falkner, Klein and Hutter (2018), BOHB.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from .errors import MeasureError
from .sampler import Scored, draw, is_numeric, shuffled
from .space import Axis, Choice, Config, Continuous, Space, Steps

if TYPE_CHECKING:
    import optuna

_STUBBORN = 4  # proposals in a row that were turned down, after which it looks around the best
_PEAKS = 3  # of the best, around which it then looks before chance decides
_SPREAD = 1_000_003  # keeps the seeds of one proposal's attempts apart from those of the next


class ParzenSampler:
    """Proposes by TPE. Raises MeasureError, naming the extra, where Optuna is not installed."""

    def __init__(self, space: Space, *, seed: int, startup: int = 10) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MeasureError("sampler: tpe needs Optuna: pip install 'morphogen[loops]'") from error
        self._optuna = optuna
        self._space, self._seed, self._startup = space, seed, startup
        self._distributions = {axis.name: self._distribution(axis) for axis in space.axes}
        self._study = self._new_study()
        self._known = 0
        self._chance = shuffled(space, seed) if space.size is not None else None

    def propose(self, scored: Sequence[Scored], pending: Sequence[Config], attempt: int) -> Config | None:
        """Return the configuration that promises most, given the trials on record; None where all were proposed."""
        if len(scored) + len(pending) < self._startup:
            return self._at_random(len(scored) + len(pending), attempt)
        if attempt >= _STUBBORN:
            near = list(islice(self._neighbours(scored), attempt - _STUBBORN, attempt - _STUBBORN + 1))
            return near[0] if near else self._at_random(len(scored) + len(pending), attempt)
        for one in scored[self._known :]:
            if self._inside(one.config):
                self._study.add_trial(self._trial(one))
        self._known = len(scored)
        study = self._study
        if pending:
            # What is being measured counts as poor for the moment, so that nobody else is sent beside it.
            study = self._new_study()
            study.add_trials(
                [*self._study.get_trials(deepcopy=False), *(self._trial(Scored(c, None)) for c in pending)]
            )
        study.sampler = self._sampler((self._seed * _SPREAD + len(scored)) * 31 + attempt + 977 * len(pending))
        asked = study.ask(self._distributions)
        study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # withdraws the question: the log has the answers
        return {axis.name: _back(axis, asked.params[axis.name]) for axis in self._space.axes}

    def _neighbours(self, scored: Sequence[Scored]) -> Iterator[Config]:
        """Yield the configurations one place away from the best, then from the next best ones."""
        good = [one for one in scored if one.value is not None and self._inside(one.config)]
        for one in sorted(good, key=lambda each: -(each.value or 0.0))[:_PEAKS]:
            for axis in self._space.axes:
                if isinstance(axis, Continuous):
                    continue
                place = int(_forth(axis, one.config[axis.name]))
                places = (place - 1, place + 1) if is_numeric(axis) else range(axis.count)
                for other in places:
                    if other != place and 0 <= other < axis.count:
                        yield {**one.config, axis.name: axis.at(other)}

    def _inside(self, config: Config) -> bool:
        """Tell whether the axes can say a configuration; a baseline may lie outside of the space."""
        return all(
            not isinstance(axis, Choice) or _place(axis, config[axis.name]) is not None for axis in self._space.axes
        )

    def _at_random(self, number: int, attempt: int) -> Config | None:
        if self._chance is not None:
            return self._chance.propose((), (), attempt)
        return draw(self._space, self._seed, number * 1009 + attempt)

    def _sampler(self, seed: int) -> "optuna.samplers.TPESampler":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls the multivariate form experimental
            return self._optuna.samplers.TPESampler(
                seed=seed % 2**32, multivariate=True, n_startup_trials=1, constant_liar=False
            )

    def _new_study(self) -> "optuna.Study":
        verbosity = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)  # it announces each study otherwise
        try:
            return self._optuna.create_study(direction="maximize")
        finally:
            self._optuna.logging.set_verbosity(verbosity)

    def _trial(self, one: Scored) -> "optuna.trial.FrozenTrial":
        states = self._optuna.trial.TrialState
        places = {axis.name: _forth(axis, one.config[axis.name]) for axis in self._space.axes}
        # A trial without a value is told as pruned: TPE ranks those below all others, and learns to stay away.
        return self._optuna.trial.create_trial(
            params=places,
            distributions=self._distributions,
            value=one.value,
            state=states.PRUNED if one.value is None else states.COMPLETE,
        )

    def _distribution(self, axis: Axis) -> "optuna.distributions.BaseDistribution":
        kinds = self._optuna.distributions
        if isinstance(axis, Continuous):
            return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
        if is_numeric(axis):
            return kinds.IntDistribution(0, axis.count - 1)
        return kinds.CategoricalDistribution(list(range(axis.count)))


def _back(axis: Axis, place: Any) -> Any:
    if isinstance(axis, Continuous):
        return min(max(float(f"{place:.12g}"), axis.low), axis.high)
    return axis.at(int(place))


def _forth(axis: Axis, value: Any) -> float | int:
    if isinstance(axis, Choice):
        place = _place(axis, value)
        assert place is not None
        return place
    if isinstance(axis, Steps):
        return min(range(axis.count), key=lambda place: abs(float(axis.at(place)) - float(value)))
    return float(value)


def _place(axis: Choice, value: Any) -> int | None:
    return next((n for n, each in enumerate(axis.values) if each == value and type(each) is type(value)), None)
