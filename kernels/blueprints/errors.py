"""What can be wrong with a blueprint, with an artifact, or with the machine that should run them.

    MorphogenError
    └── BlueprintError             anything of this room
        ├── InvalidBlueprint       the graph is not one: a bad reference, shape, size, or bytes that are no blueprint
        ├── OverBudget             it is a good graph that asks for more than was allowed
        ├── UnfitBlueprint         it is a good graph for another site
        ├── BadInit                weights that are not finite came out of building it
        ├── ArtifactRefused        a file or bytes that are not an artifact that can be trusted
        ├── PackageRefused         compiled code without a good signature of a trusted key
        ├── KeyRefused             a key that is not one
        └── MissingExtra           an optional package is not installed

Each text is one line: what, where, what to do.
"""

from morphogen.schemas import MorphogenError


class BlueprintError(MorphogenError):
    """Root of what this room raises."""


class InvalidBlueprint(BlueprintError, ValueError):
    """A graph whose references, shapes or sizes cannot be right, or bytes that hold none."""


class OverBudget(BlueprintError, ValueError):
    """A graph that needs more parameters, operations or memory than was allowed."""


class UnfitBlueprint(BlueprintError, ValueError):
    """A graph for other shapes than those of the site."""


class BadInit(BlueprintError):
    """Building gave weights that are not finite."""


class ArtifactRefused(BlueprintError):
    """Bytes that are not a whole, unchanged and trusted artifact."""


class PackageRefused(BlueprintError):
    """A compiled package that no trusted key has signed, or that was changed since."""


class KeyRefused(BlueprintError, ValueError):
    """A signing key that is not 32 bytes, or 64 hexadecimal digits."""


class MissingExtra(BlueprintError, ImportError):
    """A package of the extra `adapt` is not installed."""
