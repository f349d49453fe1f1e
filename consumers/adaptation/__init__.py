"""Growth of a model while it trains: what a training loop holds, and what happens at the end of each epoch.

    grower = morphogen.grow(run, model, optimizer, policy="heuristic", evaluate=validate)
    ...
    grower.epoch()  # after each epoch

It measures, asks the policy, lets the guards speak, has the executor act, and says all of it in the log. It does not
know how a policy decides or how a seed is wired in, and it never raises into the training loop. Needs
`pip install 'morphogen[adapt]'`.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

from .errors import GrowthError, MissingExtra
from .recorder import Recorder

if TYPE_CHECKING:
    from .config import GrowthConfig
    from .grow import grow
    from .grower import Grower

_HOMES = {"GrowthConfig": "config", "grow": "grow", "Grower": "grower"}

__all__ = ["Grower", "GrowthConfig", "GrowthError", "MissingExtra", "Recorder", "grow"]

__getattr__ = lazily(__name__, _HOMES, torch="adapt")
