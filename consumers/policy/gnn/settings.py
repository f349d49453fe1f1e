"""The size of the network and how it learns: one value, stored in every checkpoint."""

import msgspec

OPS = ("wait", "germinate", "set_alpha", "advance", "prune", "fossilize")
HABITS = {"wait": 0.0, "germinate": 0.5, "set_alpha": -1.0, "advance": 0.0, "prune": -3.0, "fossilize": 0.0}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are epochs of the run that is decided for; `steps` are of the optimizer that trains the policy.

    `habits` are the log-odds of each kind of action before anything was learned, and `rule` those of what the common
    rule for raising a seed would do (advance it, keep it once it helps): a policy that knows nothing lets a seed
    live, and learns from there what to grow, where, when, and what to give up.
    """

    hidden: int = 32
    heads: int = 4
    rounds: dict[str, int] = msgspec.field(default_factory=lambda: {"act": 2, "gain": 1})  # of attention, in each trunk
    members: int = 5  # of the ensemble that predicts the reward of a germination
    habits: dict[str, float] = msgspec.field(default_factory=lambda: dict(HABITS))
    rule: float = 3.0

    discount: float = 0.99  # an epoch
    trace: float = 0.95  # GAE's lambda, an epoch
    clip: float = 0.2
    passes: int = 4  # over what was just collected
    rate: float = 2e-3
    entropy: float = 0.01
    critic: float = 0.5
    grad_norm: float = 0.5
    max_kl: float = 0.03  # a pass that went farther than this is the last one
    floor: float = (
        0.04  # share of chance that is spread over kinds of actions, then over their actions, while exploring
    )

    optimism: float = 1.0  # standard deviations of the ensemble that are added to a predicted reward while exploring
    trust: float = 3.0  # log-odds for one standard deviation of predicted reward
    gain_draws: int = 5  # from the replay, an update
    gain_steps: int = 8  # on what was drawn
    gain_batch: int = 64
    gain_rate: float = 3e-3
    gain_decay: float = 1e-3
    prior: float = 0.5  # scale of the fixed random network below each member
    priority: float = 0.6  # exponent of the replay's priorities
    correction: float = 0.4  # exponent of the importance weights against them
    capacity: int = 4096  # outcomes that are kept
    episodes: int = 1  # between two updates
