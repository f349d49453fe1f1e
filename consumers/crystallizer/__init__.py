"""Crystallization: what was done often and well becomes a tool that is proven on the recorded past, and steps back in time.

    registry = Registry(events)
    loader = Loader(registry, capabilities, sandbox)
    called = loader.call(signature, {"column": "price"}, request="r1", environment=environment)

A draft is judged by `run_gauntlet`, what it became is folded by `Registry`, and `Loader` calls the active versions behind
their guards. Knows executions as traces; knows nothing of models, dispatch or who drafts.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .acting import Use, Watch
    from .errors import (
        BadPackage,
        CrystalError,
        GuardMissed,
        IllegalMove,
        KeyRefused,
        LoadRefused,
        NotMade,
        NoTool,
    )
    from .gauntlet import GauntletConfig, Verdict, run_gauntlet
    from .guards import derive_guards, missed
    from .lifecycle import Life
    from .loader import Called, Loader, Refreshed
    from .moves import MOVES, move
    from .packages import Package, pack, package_of, read_package
    from .past import Past
    from .registry import Attempt, Registry, Tool, Version
    from .signing import distrust, signed, trusted_keys
    from .tape import Tape
    from .toolsmith import Made, Toolsmith
    from .worker import Crystallizer, WorkerConfig

_HOMES = {
    "Registry": "registry", "Tool": "registry", "Version": "registry", "Attempt": "registry",
    "MOVES": "moves", "move": "moves",
    "run_gauntlet": "gauntlet", "Verdict": "gauntlet", "GauntletConfig": "gauntlet",
    "derive_guards": "guards", "missed": "guards",
    "Loader": "loader", "Called": "loader", "Refreshed": "loader",
    "Past": "past", "Life": "lifecycle", "Toolsmith": "toolsmith", "Made": "toolsmith",
    "Crystallizer": "worker", "WorkerConfig": "worker",
    "Package": "packages", "pack": "packages", "package_of": "packages", "read_package": "packages",
    "Tape": "tape", "Use": "acting", "Watch": "acting",
    "signed": "signing", "distrust": "signing", "trusted_keys": "signing",
    "CrystalError": "errors", "NoTool": "errors", "GuardMissed": "errors", "LoadRefused": "errors",
    "IllegalMove": "errors", "KeyRefused": "errors", "BadPackage": "errors", "NotMade": "errors",
}  # fmt: skip

__all__ = [
    "MOVES",
    "Attempt",
    "BadPackage",
    "Called",
    "CrystalError",
    "Crystallizer",
    "GauntletConfig",
    "GuardMissed",
    "IllegalMove",
    "KeyRefused",
    "Life",
    "LoadRefused",
    "Loader",
    "Made",
    "NoTool",
    "NotMade",
    "Package",
    "Past",
    "Refreshed",
    "Registry",
    "Tape",
    "Tool",
    "Toolsmith",
    "Use",
    "Verdict",
    "Version",
    "Watch",
    "WorkerConfig",
    "derive_guards",
    "distrust",
    "missed",
    "move",
    "pack",
    "package_of",
    "read_package",
    "run_gauntlet",
    "signed",
    "trusted_keys",
]

__getattr__ = lazily(__name__, _HOMES)
