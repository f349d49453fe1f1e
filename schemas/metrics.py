"""Named scalars of a step."""

from .event import Event


class Metrics(Event, type="metrics.scalars", version=1, high_rate=True):
    """Named numbers that belong to one step. NaN and infinities are values; integers and booleans stay what they are."""

    values: dict[str, bool | int | float]
