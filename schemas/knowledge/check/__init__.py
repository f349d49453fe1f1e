"""What is wrong with a module that parses: names, kinds, units, rules that cannot fire, loops that cannot run.

Everything is found in one pass, nothing is executed. Each finding has a stable code (`K101`), see `CODES`.
"""

from collections.abc import Mapping

from ..diagnostics import Diagnostic
from ..tools import TOOLS, Signature
from ..tree import Module
from .examine import Examined, examine
from .report import CODES


def check(
    module: Module, *, tools: Mapping[str, Signature] = TOOLS, used: Mapping[str, Module] | None = None
) -> tuple[Diagnostic, ...]:
    """Return everything that is wrong or strange with a parsed module, in the order of its source.

    `used` are the modules that its `use` lines name, by target; they count as checked.
    """
    return examine(module, tools, (used or {}).values()).diagnostics


__all__ = ["CODES", "Examined", "check", "examine"]
