"""How the executor goes about its work, and within what bounds; all of it stands in the log of the run that used it."""

import math
from collections.abc import Mapping
from typing import ClassVar

import msgspec

BLENDS = ("add", "multiply", "gate")
_MOST = 1 << 63  # what the log can hold of a whole number is below


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the executor holds to whoever asks. Times are epochs, counts are seeds, None is no bound."""

    max_active: int | None = 1  # seeds that are not judged yet
    max_fossilized: int | None = None
    max_params: int | None = None  # of all that has grown
    max_flops: int | None = None  # of one forward pass of one sample through all that has grown
    min_training: int = 3  # in stage training before G2 passes
    min_holding: int = 1  # in stage holding before G5 passes
    min_contribution: float = 0.0  # in loss, for G5
    ramp: str = "linear"  # linear | cosine | sigmoid, of a blending that the action says nothing of
    ramp_steps: int = 0  # its length in optimizer steps; 0 is `ExecutorConfig.ramp_epochs`


class ExecutorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the executor. Times are epochs where nothing else is said."""

    LEAST: ClassVar[Mapping[str, int]] = {  # that a setting may be, where that is not 0
        "window": 3,  # of fewer losses nobody can tell an explosion
        "stage_timeout": 1, "strikes": 1, "quarantine_after": 1, "breaker_failures": 1, "breaker_successes": 1,
    }  # fmt: skip

    auto: bool = False  # gates move a seed on by themselves: into blending and holding, and to its end, kept or pruned
    blend: str = "add"  # add | multiply | gate
    isolate: bool = False  # keep a blended seed's gradient from the layers before it; while it trains that is always so
    zero_init: bool = True  # a fresh seed begins as "add nothing"; otherwise its last layer is random as all others
    ramp_epochs: float = 3.0  # length of a ramp where neither the action nor the bounds say one; 0 is at once
    patience: int = 3  # with `auto`: in stage holding without passing G5 before a seed is pruned
    stage_timeout: int | None = None  # in training, blending or holding before a seed is pruned, whatever it does
    embargo: int = 1  # after a prune before the slot is dormant again
    explode: float = 1000.0  # rms of a seed's output to that of its host beyond which it is cut off
    rollback: bool = True  # keep a copy of the last good weights while anything grows, and go back to it
    sigma: float = 6.0  # of the losses in `window`: a loss this far above their mean is an explosion
    window: int = 20  # the last losses that were in order, 3 or more
    multiplier: float = 3.0  # and at least so many times their mean; 0 leaves it to sigma
    latency_rounds: int = 0  # times that a seed is timed for its reward, once it is holding; 0 does not measure it
    strikes: int = 3  # steps in a row whose gradients had to be dropped before the seeds that have a say are cut
    retries: int = 2  # of a load that failed, beyond the first try
    backoff: tuple[float, ...] = (0.05, 0.2)  # seconds before each retry; the last one repeats, () makes none
    quarantine_after: int = 2  # failures of one blueprint
    breaker_failures: int = 3  # in a row before nothing is germinated any more
    breaker_epochs: int = 5  # until one germination is let through again
    breaker_successes: int = 1  # germinations that must live through their first epoch before it closes

    def __post_init__(self) -> None:
        if self.blend not in BLENDS:
            raise ValueError(f"there is no blend {self.blend!r}: {', '.join(BLENDS)}")
        for name in self.__struct_fields__:
            value, least = getattr(self, name), self.LEAST.get(name, 0)
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise ValueError(f"{name} is {least} or more, not {value}")
            if isinstance(value, int) and value >= _MOST:
                raise ValueError(f"{name} is below {_MOST}, not {value}")
        if not all(0 <= pause < math.inf for pause in self.backoff):
            raise ValueError(f"backoff is seconds, 0 or more each, not {self.backoff!r:.100}")
        if self.sigma == self.multiplier == 0:
            raise ValueError("sigma or multiplier is above 0: else every loss above the mean were an explosion")
