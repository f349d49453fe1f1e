"""Measure the health of every parameterised layer of a torch model while it trains.

Knows torch and numpy. It knows nothing of events, runs or the bus: it hands each sample to a callable.
"""

from .sample import LayerSample
from .watch import Watch

__all__ = ["LayerSample", "Watch"]
