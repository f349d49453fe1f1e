"""How a module hangs together: cases to facts to rules to loops, and on to the cases and artifacts that these make."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .check.recursion import called
from .check.walk import nodes
from .index import Entry, Index, Kind, index_of
from .program import Program
from .tree import Action, Emit, EngineeringLoop, Fact, Field, Name, Node, ServiceLoop
from .wording import source

Format = Literal["mermaid", "dot", "json"]
_SHOWN: frozenset[Kind] = frozenset(
    {
        "case",
        "fact",
        "recorded",
        "rule",
        "hint",
        "invariant",
        "procedure",
        "function",
        "view",
        "loop",
        "task",
        "artifact",
    }
)
_MERMAID = {
    "case": ("[(", ")]"),
    "fact": ("{{", "}}"),
    "rule": ("[/", "/]"),
    "loop": ("([", "])"),
    "task": ("([", "])"),
}
_DOT = {
    "case": "cylinder",
    "fact": "hexagon",
    "rule": "parallelogram",
    "loop": "box, style=rounded",
    "task": "box, style=rounded",
}


@dataclass(frozen=True, slots=True)
class Vertex:
    """One declaration: `kind:System.name`, what it is, and its name alone."""

    id: str
    kind: str
    name: str
    full: str


@dataclass(frozen=True, slots=True)
class Edge:
    """One declaration feeds another: `grounds`, `asks`, `fires`, `emits`, `calls`, `runs`, `handles` or `reads`."""

    source: str
    target: str
    label: str


@dataclass(frozen=True, slots=True)
class Graph:
    """All declarations of a program and what leads from one to another."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]


def graph_of(program: Program) -> Graph:
    """Return the graph of a program, used modules included where something leads to them."""
    index = index_of(program.module, program.used_modules.values())
    entries = [entry for entry in index.entries if entry.kind in _SHOWN]
    edges = dict.fromkeys(edge for entry in entries for edge in _edges(entry, index))
    linked = {name for edge in edges for name in (edge.source, edge.target)}
    shown = [entry for entry in entries if not entry.foreign or _id(entry) in linked]
    ids = {_id(entry) for entry in shown}
    kept = tuple(edge for edge in edges if edge.source in ids and edge.target in ids)
    return Graph(tuple(dict.fromkeys(Vertex(_id(entry), entry.kind, entry.name, entry.full) for entry in shown)), kept)


def draw(graph: Graph, form: Format = "mermaid") -> str:
    """Return a graph as Mermaid, as DOT, or as JSON."""
    if form == "json":
        return _json(graph)
    return _mermaid(graph) if form == "mermaid" else _dot(graph)


def _id(entry: Entry) -> str:
    return f"{entry.kind}:{entry.full}"


def _edges(entry: Entry, index: Index) -> Iterator[Edge]:
    here = _id(entry)
    for kind, name, label in _mentions(entry.node):
        found = index.find(kind, name, entry.system)
        if found is None or found.node is entry.node:
            continue
        if label in ("emits", "calls", "runs"):
            yield Edge(here, _id(found), label)
        else:
            yield Edge(_id(found), here, label)


def _mentions(node: Node) -> Iterator[tuple[Kind, str, str]]:
    """Yield what a declaration names: of which kind it may be, how it is spelled, what leads where."""
    if isinstance(node, Fact):
        yield "case", node.case, "grounds"
    if isinstance(node, ServiceLoop):
        for handler in node.handlers:
            yield "case", handler.event, "handles"
    for name in called(node):
        yield "fact", name, "asks"
        yield "function", name, "is used"
        yield "procedure", name, "calls"
    for one in nodes(node):
        match one:
            case Emit(case=case):
                yield "case", case, "emits"
            case Action(name="tool.engineering_loop", arguments=arguments):
                for argument in arguments:
                    if argument.key == "name":
                        yield "loop", source(argument.value).strip('"'), "runs"
            case Action(emit=str(case)) if case:
                yield "case", case, "emits"
            case Name(name=name):
                yield "fact", name, "asks"
                yield "case", name, "is read"
                yield "view", name, "is read"
                yield "recorded", name, "is read"
            case Field():
                dotted = source(one)
                yield "fact", dotted, "asks"
                yield "case", dotted, "is read"
    if isinstance(node, EngineeringLoop) and node.measure is not None:
        for one in node.measure.properties:
            if one.key == "metric":
                yield "case", source(one.value).strip('"').rpartition(".")[0], "emits"


def _mermaid(graph: Graph) -> str:
    ids = {vertex.id: f"n{place}" for place, vertex in enumerate(graph.vertices)}
    lines = ["flowchart LR"]
    for vertex in graph.vertices:
        opening, closing = _MERMAID.get(vertex.kind, ("[", "]"))
        lines.append(f'  {ids[vertex.id]}{opening}"{_mermaid_text(_label(vertex))}"{closing}')
    lines += [f"  {ids[edge.source]} -->|{edge.label}| {ids[edge.target]}" for edge in graph.edges]
    return "\n".join(lines)


def _mermaid_text(text: str) -> str:
    return "".join(mark if mark.isalnum() or mark in " ._-:" else f"#{ord(mark)};" for mark in text)


def _dot(graph: Graph) -> str:
    lines = ["digraph knowledge {", "  rankdir=LR;", "  node [shape=box];"]
    for vertex in graph.vertices:
        shape = f", shape={_DOT[vertex.kind]}" if vertex.kind in _DOT else ""
        lines.append(f"  {_quoted(vertex.id)} [label={_quoted(_label(vertex))}{shape}];")
    lines += [
        f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={_quoted(edge.label)}];" for edge in graph.edges
    ]
    return "\n".join([*lines, "}"])


def _label(vertex: Vertex) -> str:
    return f"{vertex.kind}: {vertex.name}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _json(graph: Graph) -> str:
    return json.dumps(
        {
            "nodes": [{"id": vertex.id, "name": vertex.full, "kind": vertex.kind} for vertex in graph.vertices],
            "edges": [{"source": edge.source, "target": edge.target, "label": edge.label} for edge in graph.edges],
        },
        ensure_ascii=False,
        indent=2,
    )
