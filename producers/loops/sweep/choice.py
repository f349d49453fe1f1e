"""Which configuration is measured next: the baseline, then what the sampler proposes and the constraints allow."""

from collections.abc import Callable, Sequence

from .errors import SpaceError
from .plan import Plan
from .sampler import Sampler, grid, shuffled
from .space import Config, key_of
from .standing import Standing

_PATIENCE = 10_000  # proposals in a row that are turned down, in a space without end
_GLANCE = 1000


class Chooser:
    """Turns proposals into trials: none twice, none that a constraint excludes. `excluded` counts those."""

    def __init__(self, plan: Plan, check: Callable[[], None]) -> None:
        self._plan, self._check = plan, check
        self._sampler = _sampler(plan)
        self._excluded: set[str] = set()

    @property
    def excluded(self) -> int:
        """How many configurations were proposed that the constraints do not allow."""
        return len(self._excluded)

    def next(self, standing: Standing, pending: Sequence[Config]) -> Config | None:
        """Return the next configuration to measure, None where there is none."""
        if self._plan.baseline is not None and standing.baseline is None:
            return None if pending else dict(self._plan.baseline)  # nothing runs beside the first yardstick
        running = {key_of(config) for config in pending}
        attempt = 0
        while True:
            config = self._sampler.propose(standing.scored, pending, attempt)
            if config is None or (attempt >= _PATIENCE and self._plan.space.size is None):
                return None
            key = key_of(config)
            if key not in standing.trials and key not in running and key not in self._excluded:
                if self._plan.allows(config):
                    return config
                self._excluded.add(key)
            attempt += 1
            if attempt % _GLANCE == 0:
                self._check()


def _sampler(plan: Plan) -> Sampler:
    if plan.sampler == "grid":
        return grid(plan.space)
    if plan.sampler == "random":
        return shuffled(plan.space, plan.seed)
    if plan.sampler == "tpe":
        from .tpe import ParzenSampler

        return ParzenSampler(plan.space, seed=plan.seed, startup=plan.startup)
    raise SpaceError(f"engineering_loop {plan.name}: no sampler is called {plan.sampler}: grid, random or tpe")
