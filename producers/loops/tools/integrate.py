"""`tool.dsl_integrate`: new knowledge into a module file, which is checked and formatted or stays as it is."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any, TypeAlias

from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.tools import TOOLS, Signature
from morphogen.schemas.knowledge.tree import Fact, Hint, Invariant, Module, RecordedFact, Rule

from ..errors import ToolFailed
from ..workspace import Workspace
from .toolbox import ToolCall, ToolResult

Knowledge: TypeAlias = Fact | RecordedFact | Rule | Hint | Invariant
_FENCE = re.compile(r"```[A-Za-z0-9_+-]*\n(.*?)```", re.DOTALL)
_PLACE = re.compile(r"\bknowledge\s*\{")


class Integrate:
    """Merges knowledge into a module."""

    signature: Signature = TOOLS["tool.dsl_integrate"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return write."""
        return "write"

    def plan(self, call: ToolCall) -> Any:
        """Return the file's hash before."""
        return {"into": call.arguments["into"], "before": call.context.workspace.sha256(call.arguments["into"])}

    def run(self, call: ToolCall) -> ToolResult:
        """Write the merged module. Raises ToolFailed, with the first error, where it would not check: nothing is written."""
        from morphogen.schemas.knowledge.format import format_text
        from morphogen.schemas.knowledge.program import load_text

        workspace, into = call.context.workspace, call.arguments["into"]
        try:
            present = workspace.read(into).decode("utf-8", "strict")
        except (FileNotFoundError, NotADirectoryError):
            present = ""
        except UnicodeDecodeError:
            raise ToolFailed(f"tool.dsl_integrate: {into} is no text file") from None
        try:
            text = format_text(merged(present, said(call.arguments["source"]), into))
            _stays_inside(text, into, workspace)
            load_text(text, path=str(Path(workspace.root) / into), tools=call.context.tools.signatures)
        except KnowledgeError as error:
            raise ToolFailed(f"tool.dsl_integrate: {into} stays as it is: {error}") from error
        changed = text != present
        if changed:
            workspace.write(into, text.encode())
        return ToolResult(output={"path": into, "changed": changed}, resources={"bytes": len(text.encode())})


def _stays_inside(text: str, into: str, workspace: Workspace) -> None:
    """Refuse a module that uses, by itself or by way of others, a file outside of the workspace. Raises ToolRefused."""
    from morphogen.schemas.knowledge.parse import parse

    waiting, seen = [(text, into)], {into}
    while waiting:
        text, path = waiting.pop()
        targets = {use.target for use in parse(text, path).module.uses if not use.target.startswith("std.")}
        for name in {normpath(join(dirname(path), target)) for target in targets} - seen:
            seen.add(name)
            with contextlib.suppress(
                FileNotFoundError, NotADirectoryError, UnicodeDecodeError
            ):  # which the check tells
                waiting.append((workspace.read(name).decode(), name))


def said(source: str) -> str:
    """Return the module in what somebody wrote: the fenced parts where there are any, else all of it."""
    fenced = _FENCE.findall(source)
    return "\n".join(fenced) if fenced else source


def merged(present: str, added: str, path: str) -> str:
    """Return a module's text with added knowledge: a whole module as it is for a new file, else its knowledge block's content.

    What is there already, by kind and name, is replaced by the new one. Raises KnowledgeError where either does not parse.
    """
    new = _parsed(added if _top_level(added) else f"system Added {{\n{_block(added)}\n}}", path)
    if not present.strip():
        return added if _top_level(added) else f"system {_system_name(path)} {{\n{_block(added)}\n}}\n"
    old = _parsed(present, path)
    if not old.systems or not new.systems:
        raise KnowledgeError.plain(
            f"{path}: only the knowledge of systems is merged, and one of the two has no system", path=path
        )
    text, source = present, added if _top_level(added) else f"system Added {{\n{_block(added)}\n}}"
    there, wanted = _named(old), _named(new)
    if not wanted:
        raise KnowledgeError.plain(
            f"{path}: there is no fact, rule, hint or invariant in what is to be added", path=path
        )
    new_ones = {key: node for key, node in wanted.items() if there.get(key) != node}  # where they stand does not count
    if not new_ones:
        return present
    for key in sorted(set(there) & set(new_ones), key=lambda one: -there[one].span.start):
        text = text[: there[key].span.start] + text[there[key].span.end :]
    pieces = [source[node.span.start : node.span.end] for node in new_ones.values()]
    # The last brace that closes the module's first system: a section may come in pieces.
    target = _parsed(text, path).systems[0]
    end = text.rstrip().rfind("}", 0, target.span.end or len(text))
    return f"{text[:end].rstrip()}\nknowledge {{\n{chr(10).join(pieces)}\n}}\n{text[end:]}"


def _parsed(text: str, path: str) -> Module:
    from morphogen.schemas.knowledge.parse import parse

    read = parse(text, path)
    errors = tuple(one for one in read.diagnostics if one.severity == "error")
    if errors:
        raise KnowledgeError(errors, text, path)
    return read.module


def _named(module: Module) -> dict[tuple[str, str], Knowledge]:
    """Return each piece of knowledge by kind and name, in the order written."""
    found: dict[tuple[str, str], Knowledge] = {}
    for system in module.systems:
        facts: tuple[Fact | RecordedFact, ...] = (*system.facts, *system.recorded)
        others: tuple[Rule | Hint | Invariant, ...] = (*system.rules, *system.hints, *system.invariants)
        found.update({("Fact", fact.name): fact for fact in facts})
        found.update({(type(one).__name__, one.name): one for one in others})
    return dict(sorted(found.items(), key=lambda item: item[1].span.start))


def _top_level(text: str) -> bool:
    return re.search(r"^\s*(system|domain|task|system_model)\s+[\w\"']+\s*\{", text, re.MULTILINE) is not None


def _block(text: str) -> str:
    return text if _PLACE.search(text) else f"knowledge {{\n{text}\n}}"


def _system_name(path: str) -> str:
    name = re.sub(r"\W", "", Path(path).stem.title())
    return name if name and not name[0].isdigit() else "Knowledge"
