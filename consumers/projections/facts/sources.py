"""Where the items of a case come from: what reads them in a batch of the log.

A case of its own reads events of its own type. A case that is bound to an event type of the log reads those: one item an
event, or, of `health.layer`, one a layer. Whole columns are made; no item is an object of its own where the log holds
numbers.
"""

from typing import Protocol

from morphogen.schemas.knowledge.cases import structure
from morphogen.schemas.knowledge.program import CaseInfo

from ..fold.batch import Batch
from .bound_events import HealthEvents, MetricEvents, OtherEvents
from .items import Read
from .own_events import OwnEvents


class Source(Protocol):
    """What reads the items of one case."""

    info: CaseInfo
    type: str

    def read(self, batch: Batch) -> Read:
        """Return the items in a batch."""
        ...


def source_of(info: CaseInfo) -> Source:
    """Return what reads the items of a case."""
    if info.source is None:
        return OwnEvents(info)
    if info.source == "metrics.scalars":
        return MetricEvents(info)
    return HealthEvents(info) if info.source == "health.layer" else OtherEvents(info)


def once(source: Source, batch: Batch) -> Read:
    """Return what `source.read` says of a batch, read once for all who ask."""
    return batch.once(("case", source.type, structure(source.info)), lambda: source.read(batch))
