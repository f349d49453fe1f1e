"""What was done before, and how well: executions of the log as traces, and traces of one goal's template as families.

A pure fold (`Families`), and the reading that feeds it. Knows nothing of how a goal is pursued, and decides nothing.
"""

from morphogen.schemas.evidence import Z, wilson_lower

from .families import KEPT, Families
from .family import Family, ModeTally, Seen, tool_name
from .reading import FAMILIES, at_of, catch_up, fetch, follow, frames, read_families
from .trace import At, Step, Trace

__all__ = [
    "FAMILIES",
    "KEPT",
    "At",
    "Families",
    "Family",
    "ModeTally",
    "Seen",
    "Step",
    "Trace",
    "Z",
    "at_of",
    "catch_up",
    "fetch",
    "follow",
    "frames",
    "read_families",
    "tool_name",
    "wilson_lower",
]
