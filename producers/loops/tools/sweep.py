"""`tool.engineering_loop`: run a sweep of this program as one step."""

from collections.abc import Mapping
from typing import Any

from morphogen.schemas.knowledge.tools import TOOLS, Signature
from morphogen.schemas.knowledge.tree import EngineeringLoop

from ..errors import ToolRefused
from .toolbox import ToolCall, ToolResult


class Sweep:
    """Runs engineering loops. A sweep keeps its own progress in the log, so doing it again is going on with it."""

    signature: Signature = TOOLS["tool.engineering_loop"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return external: measuring starts programs."""
        return "external"

    def plan(self, call: ToolCall) -> Any:
        """Return the loop's name."""
        return {"engineering_loop": call.arguments["name"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Return what the sweep found."""
        from ..sweep.run import run_sweep

        found = call.context.program.find_loop(call.arguments["name"])
        if not isinstance(found, EngineeringLoop):
            raise ToolRefused(f"tool.engineering_loop: the program has no engineering loop {call.arguments['name']!r}")
        result = run_sweep(
            found, call.context, parameters=call.arguments.get("parameters"), budget=call.arguments.get("budget")
        )
        found_out = result.plain()
        counts = {name: value for name, value in found_out.items() if isinstance(value, int | float)}
        return ToolResult(output=found_out, resources=counts)
