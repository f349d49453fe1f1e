"""What slots refuse.

MorphogenError
└── SlotError              something about a slot cannot be done: what, where, what to do
    ├── LifecycleError     a step that is not in the table of stages
    ├── SiteError          a model or a module that nothing can be grown at
    ├── JoinError          an optimizer that cannot take parameters in the middle of a run
    └── MissingExtra       an optional package is not installed
"""

from morphogen.schemas import MorphogenError


class SlotError(MorphogenError):
    """Something about a slot cannot be done."""


class LifecycleError(SlotError):
    """A step that is not in the table of stages."""


class SiteError(SlotError):
    """A model or a module that nothing can be grown at."""


class JoinError(SlotError):
    """An optimizer that cannot take or give up parameters in the middle of a run."""


class MissingExtra(SlotError, ImportError):
    """An optional package is not installed; the text names the extra."""
