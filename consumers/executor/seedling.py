"""What the executor keeps of one seed, from its germination to its judgement."""

from dataclasses import dataclass

from morphogen.kernels.slots import Contribution


@dataclass(kw_only=True)
class Seedling:
    """A seed that stands, or stood, in a slot. Epochs count from 0; -1 is before the first."""

    slot: str
    seed: str
    name: str  # in the menu
    address: str  # of its blueprint
    params: int
    epoch: int  # after which it germinated
    decision: str | None
    cause: str | None  # the id of the event that it germinated by
    stage: str = "germinated"
    target: float | None = None  # where its alpha goes
    failures: int = 0
    contribution: Contribution | None = None  # the last measured one
    measured: int | None = None  # the epoch after which it was
    latency: float | None = None  # what it adds to an evaluation, as a share of it; None was not measured
    proven: bool = False  # it lived through its first epoch, and the circuit breaker was told

    def known(self, epoch: int) -> Contribution | None:
        """Return what it was measured to contribute after `epoch`, or None where it was not measured then."""
        return self.contribution if self.measured == epoch else None
