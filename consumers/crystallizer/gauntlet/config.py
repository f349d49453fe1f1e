"""How hard a draft is tried."""

import msgspec


class GauntletConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the gauntlet. The same draft, executions and settings give the same verdict."""

    held_out: int = 2  # executions that it must be replayed on, at the least
    again: int = 8  # held-out executions that are run once more in an interpreter of their own
    crossed: int = 8  # recorded parameters in new combinations
    edges: int = 6  # values at the edges of the recorded types, inside the guards
    wrong: int = 6  # values of other types
    worlds: int = 8  # recorded parameters where the tools answer otherwise
    shadows: int = 3  # runs beside the live mode before it may be promoted
    promote_lower: float = 0.75  # Wilson's lower bound of held-out executions and shadow runs together
