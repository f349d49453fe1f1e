"""One growth to a run: its events name neither model nor grower, so two of them could not be told apart."""

from contextlib import suppress
from weakref import WeakValueDictionary

from .errors import GrowthError
from .recorder import Recorder

_CLAIMED: WeakValueDictionary[int, Recorder] = WeakValueDictionary()  # by the id of what records the run


def unclaimed(run: Recorder) -> None:
    """Refuse a run that has, or had, a growth. Raises GrowthError."""
    if id(run) in _CLAIMED:
        raise GrowthError(
            "a growth is recorded in this run already, and a run holds one: for another model, or to go on after "
            "finish(), record a run of its own"
        )


def claim(run: Recorder) -> None:
    """Keep a run for one growth."""
    with suppress(TypeError):  # what cannot be referred to weakly cannot be told from what follows it at its place
        _CLAIMED[id(run)] = run


def release(run: Recorder) -> None:
    """Let another growth have a run in whose log this one left nothing."""
    _CLAIMED.pop(id(run), None)
