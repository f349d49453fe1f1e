"""The size of the network and how it learns: one value, stored in every checkpoint."""

from typing import Annotated, Any

import msgspec

OPS = ("wait", "germinate", "set_alpha", "advance", "prune", "fossilize")
HABITS = {"wait": 0.0, "germinate": 0.5, "set_alpha": -1.0, "advance": 0.0, "prune": -3.0, "fossilize": 0.0}

_Many = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Times = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
_Number = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
_Positive = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are epochs of the run that is decided for; `steps` are of the optimizer that trains the policy.

    `habits` are the log-odds of each kind of action before anything was learned, and `rule` those of what the common
    rule for raising a seed would do (advance it, keep it once it helps): a policy that knows nothing lets a seed
    live, and learns from there what to grow, where, when, and what to give up.
    """

    hidden: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    heads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    rounds: dict[str, Annotated[int, msgspec.Meta(ge=0, le=32)]] = msgspec.field(
        default_factory=lambda: {"act": 2, "gain": 1}
    )  # of attention, in each trunk
    members: Annotated[int, msgspec.Meta(ge=1, le=256)] = 5  # of the ensemble that predicts the reward of a germination
    habits: dict[str, _Number] = msgspec.field(default_factory=lambda: dict(HABITS))
    rule: _Number = 3.0

    discount: _Share = 0.99  # an epoch
    trace: _Share = 0.95  # GAE's lambda, an epoch
    clip: _Positive = 0.2
    passes: _Times = 4  # over what was just collected
    rate: _Positive = 2e-3
    entropy: _Positive = 0.01
    critic: _Positive = 0.5
    grad_norm: _Positive = 0.5
    max_kl: _Positive = 0.03  # a pass that went farther than this is the last one
    floor: _Share = (
        0.04  # share of chance that is spread over kinds of actions, then over their actions, while exploring
    )

    optimism: _Positive = (
        1.0  # standard deviations of the ensemble that are added to a predicted reward while exploring
    )
    trust: _Positive = 3.0  # log-odds for one standard deviation of predicted reward
    gain_draws: _Times = 5  # from the replay, an update
    gain_steps: _Times = 8  # on what was drawn
    gain_batch: _Many = 64
    gain_rate: _Positive = 3e-3
    gain_decay: _Positive = 1e-3
    prior: _Positive = 0.5  # scale of the fixed random network below each member
    priority: _Positive = 0.6  # exponent of the replay's priorities
    correction: _Positive = 0.4  # exponent of the importance weights against them
    capacity: _Many = 4096  # outcomes that are kept
    episodes: _Many = 1  # between two updates


def checked(given: Any) -> Settings:
    """Return settings, given as such or as a mapping of their names, that a network of reasonable size can be made of.

    Raises ValueError in one line that names the one that is out of its bounds.
    """
    told = msgspec.structs.asdict(given) if isinstance(given, Settings) else given
    try:
        settings = msgspec.convert(told, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"settings: {error}") from error
    if set(settings.rounds) != {"act", "gain"}:
        raise ValueError("settings: rounds are of act and gain")
    if settings.hidden % settings.heads:
        raise ValueError(f"settings: {settings.heads} heads do not divide {settings.hidden} units")
    return settings
