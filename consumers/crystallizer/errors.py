"""What can be wrong with a tool, its package, or a call of it.

    MorphogenError
    └── CrystalError            anything of this room
        ├── NoTool              there is no active version for a family: nothing was run
        ├── GuardMissed         a guard does not hold: the tool is not for this call, another mode is
        ├── LoadRefused         a version that may not be loaded: hash, name, signature, grammar, a missing capability
        ├── IllegalMove         a change of state that no version may make
        ├── KeyRefused          a key or a signature that cannot be used
        ├── BadPackage          a file that is no whole and unaltered tool
        ├── Busy                another process is making this tool
        └── NotMade             no tool can be made as it was asked for
            ├── NoDraft             a model's reply holds no tool
            ├── DraftOverBudget     asking a model may cost more than is left; nothing was spent
            ├── DraftUnanswered     a model gave no reply; nothing came of it, and it may be asked later
            └── DraftInterrupted    a model was being asked when the process ended; it is not asked again

What a tool does when it is run is no exception here: it is told in `Called`. Each text is one line.
"""

from typing import TYPE_CHECKING

from morphogen.schemas import MorphogenError

if TYPE_CHECKING:
    from morphogen.schemas import CrystalInvoked
    from morphogen.schemas.crystals import Guard

    from .acting import Use


class CrystalError(MorphogenError):
    """Root of what this room raises."""


class NoTool(CrystalError, LookupError):
    """There is no active version of a tool for a family."""


class GuardMissed(CrystalError):
    """A guard does not hold. `invoked` is the event to publish; `uses` is what was done before it was missed.

    `uses` is empty for all guards but those of the world, which are known only once the world has answered.
    """

    def __init__(
        self, message: str, guard: "Guard", invoked: "CrystalInvoked", uses: "tuple[Use, ...]" = (), name: str = ""
    ) -> None:
        super().__init__(message)
        self.guard = guard
        self.invoked = invoked
        self.uses = uses
        self.name = name  # as in `invoked.guard`: `type price`, `environment python`


class LoadRefused(CrystalError):
    """A version that may not be loaded."""


class IllegalMove(CrystalError, ValueError):
    """A change of state that no version may make."""


class KeyRefused(CrystalError, ValueError):
    """A key or a signature that cannot be used."""


class BadPackage(CrystalError, ValueError):
    """A file that is no whole and unaltered tool."""


class NotMade(CrystalError):
    """No tool can be made as it was asked for."""


class NoDraft(NotMade):
    """A model's reply that holds no tool."""


class DraftOverBudget(NotMade):
    """Asking a model may cost more than is left of the budget; nothing was spent."""


class DraftUnanswered(NotMade):
    """A model gave no reply: it may be asked later, where that has cost nothing."""


class DraftInterrupted(NotMade):
    """A model was being asked when the process ended: it may have been paid for, and is not asked again."""


class Busy(CrystalError):
    """Another process is making this tool."""


def unforeseen(error: Exception) -> str:
    """Return an error that nobody foresaw in one line: its type, and what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
