"""What a step can do to the world, one file each: run, read, write, ask, send.

A tool knows its arguments, the workspace and the key of the step that it acts for. It knows nothing of the log: who calls it records.
"""

from .toolbox import Tool, Toolbox, ToolCall, ToolResult, tool

__all__ = ["Tool", "ToolCall", "ToolResult", "Toolbox", "tool"]
