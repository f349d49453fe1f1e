"""From measured sweeps to drafted knowledge: which parameters decide, from which value on, and how sure that is.

Reads trials, writes the text of a module. Says nothing where the measurements show nothing.
"""

from .draft import Lifted, lift
from .stumps import Stump, stumps

__all__ = ["Lifted", "Stump", "lift", "stumps"]
