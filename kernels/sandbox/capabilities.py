"""What a tool may do beside computing: files of one workspace, and the tools that its caller declares.

Knows names, effects and callables; knows nothing of processes. A tool reaches them as functions by the same names:
`files.read_text("a.txt")`, `sql(query="...")`.
"""

import keyword
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from .errors import BadCapability
from .workspace import Workspace

EffectClass = Literal["pure", "read", "write", "external"]
_EFFECTS = ("pure", "read", "write", "external")
_RESERVED = {"ToolError", "print"}

FILES: dict[str, EffectClass] = {
    "read_text": "read", "read_bytes": "read", "exists": "read", "list_folder": "read",
    "write_text": "write", "write_bytes": "write", "append_text": "write", "remove": "write", "make_folder": "write",
}  # fmt: skip


class Declared(msgspec.Struct, frozen=True):
    """A function of the host that a tool may call by name, and what calling it does to the world.

    One that never `waits` (for a network, a lock, another process) is called at once, as those of a workspace are; any
    other runs on a thread of its own, so that its deadline can be kept.
    """

    function: Callable[..., Any]
    effect: EffectClass = "external"
    waits: bool = True


def _nothing() -> None:
    """Leave nothing for later."""


class Capabilities:
    """A set of functions by name, each with its effect.

    `files` gives `files.read_text` and the like below one folder; `tools` gives callables, or `Declared` where the
    effect is other than external. Names are Python names, dotted where they are grouped.
    """

    def __init__(
        self,
        *,
        files: Workspace | None = None,
        tools: Mapping[str, Declared | Callable[..., Any]] | None = None,
    ) -> None:
        self.workspace = files
        self.functions: dict[str, Declared] = {}
        self.settle: Callable[[], object] = _nothing
        """Called when an answer is on its way to the tool, before it can ask again: for what need not keep it waiting."""
        if files is not None:
            for name, effect in FILES.items():
                if effect == "read" or files.write:
                    self.functions[f"files.{name}"] = Declared(getattr(files, name), effect, waits=False)
        for name, tool in (tools or {}).items():
            self._declare(name, tool)

    def _declare(self, name: str, tool: Declared | Callable[..., Any]) -> None:
        declared = tool if isinstance(tool, Declared) else Declared(tool)
        parts = name.split(".")
        if not all(part.isidentifier() and not keyword.iskeyword(part) and not part.startswith("_") for part in parts):
            raise BadCapability(f"{name!r} is no name for a tool; use Python names joined by dots, such as 'sql.query'")
        if declared.effect not in _EFFECTS:
            raise BadCapability(f"the effect {declared.effect!r} of {name!r} is none of {', '.join(_EFFECTS)}")
        if not callable(declared.function):
            raise BadCapability(f"the tool {name!r} is not callable; give a function")
        taken = {*self.functions, *_RESERVED}
        if name in taken or any(one.startswith(f"{name}.") or name.startswith(f"{one}.") for one in taken):
            raise BadCapability(f"the name {name!r} is taken, or is a group of others; choose another")
        self.functions[name] = declared

    @property
    def names(self) -> tuple[str, ...]:
        """The full names, sorted."""
        return tuple(sorted(self.functions))


NONE = Capabilities()
