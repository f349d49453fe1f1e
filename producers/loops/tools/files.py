"""`tool.read` and `tool.write`: files of the workspace, whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from morphogen.schemas import jsonable
from morphogen.schemas.knowledge.tools import TOOLS, Signature

from ..errors import ToolFailed
from .toolbox import ToolCall, ToolResult, limit

_LARGEST = 64 << 20  # bytes that are read unless a step says otherwise


class Read:
    """Reads a text file."""

    signature: Signature = TOOLS["tool.read"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return read."""
        return "read"

    def plan(self, call: ToolCall) -> Any:
        """Return what would be read."""
        return {"path": call.arguments["path"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Return the text; bytes that are no UTF-8 are shown as such."""
        path = call.arguments["path"]
        try:
            data = call.context.workspace.read(path, int(limit(call, "max_bytes", _LARGEST)))
        except (FileNotFoundError, NotADirectoryError):
            if not call.context.live:
                return ToolResult(planned=True, plan={"path": path})  # an earlier step of the plan may make it
            raise ToolFailed(f"tool.read: the workspace has no file {path}") from None
        text = data.decode("utf-8", "replace")
        return ToolResult(output=text, text=text, resources={"bytes": len(data)})


class Write:
    """Writes a file. The plan holds what the file is before and after, so doing it twice is doing it once."""

    signature: Signature = TOOLS["tool.write"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return write."""
        return "write"

    def plan(self, call: ToolCall) -> Any:
        """Return the file's hash as it is (None: there is none) and as it will be."""
        path, content = call.arguments["path"], content_of(call.arguments["content"])
        before = call.context.workspace.sha256(path)
        after = _whole(call, content, before)
        return {"path": path, "before": before, "after": hashlib.sha256(after).hexdigest(), "bytes": len(after)}

    def run(self, call: ToolCall) -> ToolResult:
        """Write it; where an attempt before has, leave it. Raises ToolFailed where somebody else changed the file."""
        arguments, workspace = call.arguments, call.context.workspace
        path, content = arguments["path"], content_of(arguments["content"])
        plan = call.plan if isinstance(call.plan, dict) and call.again else None
        now = workspace.sha256(path)
        if plan is not None and now == plan.get("after"):
            return ToolResult(output=path, resources={"bytes": plan.get("bytes")})
        if plan is not None and arguments["mode"] == "append" and now != plan.get("before"):
            raise ToolFailed(
                f"tool.write: {path} is neither what it was before this step nor what the step makes of it: "
                "somebody else changed it; put it right and resume"
            )
        data = _whole(call, content, now)
        workspace.write(path, data)
        return ToolResult(output=path, resources={"bytes": len(data)})


def content_of(value: Any) -> bytes:
    """Return what is to be written: text as it is, other values as indented JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return (json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n").encode()


def _whole(call: ToolCall, content: bytes, before: str | None) -> bytes:
    if call.arguments["mode"] != "append" or before is None:
        return content
    return call.context.workspace.read(call.arguments["path"]) + content
