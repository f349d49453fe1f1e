"""The life of a seed: its stages, and the one table of the steps between them."""

from enum import StrEnum


class Stage(StrEnum):
    """Where a slot stands. The values are the names in the log."""

    DORMANT = "dormant"
    GERMINATED = "germinated"
    TRAINING = "training"
    BLENDING = "blending"
    HOLDING = "holding"
    FOSSILIZED = "fossilized"
    PRUNED = "pruned"
    EMBARGOED = "embargoed"
    RESETTING = "resetting"


LEGAL: dict[Stage, tuple[Stage, ...]] = {
    Stage.DORMANT: (Stage.GERMINATED,),
    Stage.GERMINATED: (Stage.TRAINING, Stage.PRUNED),
    Stage.TRAINING: (Stage.BLENDING, Stage.PRUNED),
    Stage.BLENDING: (Stage.HOLDING, Stage.PRUNED),
    Stage.HOLDING: (Stage.FOSSILIZED, Stage.BLENDING, Stage.PRUNED),
    Stage.FOSSILIZED: (),
    Stage.PRUNED: (Stage.EMBARGOED,),
    Stage.EMBARGOED: (Stage.RESETTING,),
    Stage.RESETTING: (Stage.DORMANT,),
}

SEEDED = frozenset({Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED})
"""The stages in which a seed stands in the slot."""

BLENDED = frozenset({Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED})
"""The stages in which a seed may change what the host gives."""

RAMPED = frozenset({Stage.BLENDING, Stage.HOLDING})
"""The stages in which alpha may change."""


def refusal(current: Stage | str, wanted: Stage | str) -> str | None:
    """Say in one line why a slot may not go from `current` to `wanted`; None where it may."""
    try:
        here = Stage(current)
    except ValueError:
        return f"{current!r} is no stage; the stages are {', '.join(Stage)}"
    try:
        there = Stage(wanted)
    except ValueError:
        return f"{wanted!r} is no stage; the stages are {', '.join(Stage)}"
    if there in LEGAL[here]:
        return None
    if not LEGAL[here]:
        return f"{here} is final: what has fossilized is part of the host"
    return f"from {here} a slot goes to {' or '.join(LEGAL[here])}, not to {there}"
