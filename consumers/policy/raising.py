"""How a seed is brought up once it stands: advance it as soon as that is legal, keep it if it helps, else prune it.

Policies that choose only what grows where, and when, share this for the rest of a seed's life.
"""

from .protocol import ACTIVE, Observation, Proposal

PATIENCE = 20  # epochs in one stage after which a seed is given up


def raise_seeds(observation: Observation, *, judge: bool = True, patience: int = PATIENCE) -> Proposal | None:
    """Return what the seeds that stand need next, the oldest first; None where they need nothing.

    Without `judge` a seed whose measured contribution is not above zero is waited for, not pruned.
    """
    slots = [slot for slot in observation.slots if observation.stage(slot) in ACTIVE]
    if len(slots) > 1:
        slots.sort(key=lambda slot: -(observation.value("epochs_in_stage", slot) or 0.0))
    for slot in slots:
        proposal = _next(observation, slot, judge, patience)
        if proposal is not None:
            return proposal
    return None


def _next(observation: Observation, slot: str, judge: bool, patience: int) -> Proposal | None:
    stage, epochs = observation.stage(slot), observation.value("epochs_in_stage", slot) or 0.0
    index = observation.index("fossilize", slot)
    contribution = observation.value("contribution", slot)
    if index is not None:
        return Proposal(index, reason=f"{slot} takes {contribution:.4g} off the loss")
    index = observation.index("advance", slot)
    if index is not None:
        return Proposal(index, reason=f"{slot} has been {stage} for {epochs:.0f} epochs")
    prune = observation.index("prune", slot)
    if prune is None:
        return None
    if judge and stage == "holding" and epochs >= 1 and contribution is not None and contribution <= 0:
        return Proposal(prune, reason=f"{slot} does not help: it takes {contribution:.4g} off the loss")
    if epochs >= patience:
        return Proposal(prune, reason=f"{slot} has been {stage} for {epochs:.0f} epochs, and may not go on")
    return None
