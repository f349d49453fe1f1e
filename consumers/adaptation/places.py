"""Where a model may grow: at the sites that were asked for, or in the slots that were restored with it."""

from typing import Any

import msgspec
from torch import nn

from morphogen.kernels.slots import Cutoff, Slots, adapt
from morphogen.schemas import plain

from .config import GrowthConfig
from .errors import GrowthError

_AT_A_SITE, _IN_ALL = 1_000, 100_000  # slots: the log says of each where it stands, decision by decision


def placed(model: nn.Module, sites: Any, slots: int, *, example: Any, config: GrowthConfig) -> Slots:
    """Return the slots of `model`, whose seeds are cut off where `config` says.

    Raises GrowthError for slots of another model and for too many of them, SlotError for sites that are none.
    """
    if isinstance(slots, int) and slots > _AT_A_SITE:
        raise GrowthError(f"slots is {_AT_A_SITE:,} at most, not {plain(slots)!r:.100}")
    if isinstance(sites, Slots):
        found = sites
        if found.model is not model:
            raise GrowthError("these slots are of another model: pass the model that they were restored for")
    else:
        found = adapt(model, sites, slots, example=example)
    if len(found) > _IN_ALL:
        raise GrowthError(f"these are {len(found):,} slots, {_IN_ALL:,} may be: name fewer sites, or fewer slots")
    _bounded(found, msgspec.structs.replace(found.cutoff, exploding=config.explode))
    return found


def _bounded(slots: Slots, cutoff: Cutoff) -> None:
    """Hold the seeds that stand, and all that will, to a cutoff."""
    slots.cutoff = cutoff
    for slot in slots.active():
        if slot.graft is not None:
            slot.graft.cutoff = cutoff
