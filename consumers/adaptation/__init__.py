"""Growth of a model while it trains: what a training loop holds, and what happens at the end of each epoch.

    grower = morphogen.grow(run, model, optimizer, policy="heuristic", evaluate=validate)
    ...
    grower.epoch()  # after each epoch

It measures, asks the policy, lets the guards speak, has the executor act, and says all of it in the log. It does not
know how a policy decides or how a seed is wired in, and it never raises into the training loop. Needs
`pip install 'morphogen[adapt]'`.
"""

from typing import TYPE_CHECKING, Any

from .errors import GrowthError, MissingExtra
from .recorder import Recorder

if TYPE_CHECKING:
    from .config import GrowthConfig
    from .grow import grow
    from .grower import Grower

_HOMES = {"GrowthConfig": "config", "grow": "grow", "Grower": "grower"}

__all__ = ["Grower", "GrowthConfig", "GrowthError", "MissingExtra", "Recorder", "grow"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(f"{name} needs torch: pip install 'morphogen[adapt]'") from error
    globals()[name] = found
    return found
