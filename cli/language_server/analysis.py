"""What an editor asks about a module: what stands here, where it is declared, what could stand here."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from morphogen.schemas.knowledge.aggregates import AGGREGATES
from morphogen.schemas.knowledge.check import Examined
from morphogen.schemas.knowledge.check.flow import assigned
from morphogen.schemas.knowledge.check.walk import nodes
from morphogen.schemas.knowledge.diagnostics import Diagnostic
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.index import Entry, Index, Kind, index_of
from morphogen.schemas.knowledge.keywords import KEYWORDS
from morphogen.schemas.knowledge.loading import Sources, Uses, examined_source, find_used, library
from morphogen.schemas.knowledge.logic import SCALAR_FUNCTIONS
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tools import CONDITIONS, EVERY_ACTION, ParameterSpec, Signature
from morphogen.schemas.knowledge.tree import (
    Action,
    AgentLoop,
    Assign,
    Case,
    Emit,
    EngineeringLoop,
    Fact,
    For,
    Function,
    Handler,
    Module,
    Node,
    Procedure,
    Property,
    System,
    Task,
    TypeDecl,
    Use,
)
from morphogen.schemas.knowledge.types import SCALARS, Type
from morphogen.schemas.knowledge.units import UNITS, describe_dimension

from .words import declared, function_doc, parameter_doc, type_words

_WORD = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
_FACT_HEAD = re.compile(r"\bfact\s+[^({]*\(\s*(\w+)\s*:\s*([\w.]+)\s*\)\s*\{")
_SYSTEM_HEAD = re.compile(r"\bsystem\s+(\w+)\s*\{")
_NAMED: tuple[Kind, ...] = (
    "fact", "recorded", "case", "type", "function", "procedure", "constant", "state", "loop", "task", "rule", "hint",
    "invariant", "view", "artifact",
)  # fmt: skip
_OWNERS = (Task, AgentLoop, Handler, EngineeringLoop, Procedure)


@dataclass(frozen=True, slots=True)
class Target:
    """A place that an editor jumps to: a file, and character offsets in its text."""

    path: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word that could stand at the cursor."""

    label: str
    kind: str
    detail: str = ""


class Document:
    """One text as it stands in the editor."""

    def __init__(
        self, text: str, path: str, tools: Mapping[str, Signature], open_texts: Mapping[str, str] | None = None
    ) -> None:
        """Take a text; `open_texts` are unsaved texts of other files, by the target that a `use` names."""
        self.text = text
        self.path = path
        self.tools = tools
        self.open_texts = dict(open_texts or {})

    @cached_property
    def examined(self) -> tuple[Examined, Uses, tuple[Diagnostic, ...]]:
        """The check of the whole text."""
        return examined_source(self.text, self.path, Sources(self.tools, self.open_texts))

    @cached_property
    def module(self) -> Module:
        """The tree as written."""
        return parse(self.text, self.path).module

    @cached_property
    def index(self) -> Index:
        """What this module and those that it uses declare."""
        return index_of(self.module, self.examined[1].modules.values())

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Return everything that is wrong."""
        return self.examined[2]

    # What stands here -------------------------------------------------------------------------------------------

    def hover(self, offset: int) -> str | None:
        """Return what the word at an offset is, as Markdown; None where that is nothing known."""
        chain = self._chain(offset)
        if chain is None:
            return None
        return self._local(chain, offset) or self._global(chain, offset)

    def definition(self, offset: int) -> Target | None:
        """Return where the word at an offset is declared; None where that is nowhere, or in Morphogen itself."""
        used = self._used_file(offset)
        if used is not None:
            return used
        chain = self._chain(offset)
        if chain is None:
            return None
        for node, name in self._local_declarations(chain, offset):
            return self._target(node, name, self.text, self.path)
        entry = self._entry(chain, offset)
        field = self._field(chain, offset)
        if field is not None:
            owner, name = field
            return self._of_entry(owner, name)
        return None if entry is None else self._of_entry(entry, entry.name)

    def _chain(self, offset: int) -> str | None:
        """Return the dotted word up to the part that the cursor is in."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        line = self.text[start : len(self.text) if end < 0 else end]
        for match in _WORD.finditer(line):
            if match.start() <= offset - start <= match.end():
                if match.group() in self.tools:
                    return match.group()
                rest = line[offset - start : match.end()]
                cut = rest.find(".")
                return match.group() if cut < 0 else line[match.start() : offset - start + cut]
        return None

    def _system(self, offset: int) -> str:
        found = self._around(offset, System)
        if isinstance(found, System):
            return found.name
        written = [one[1] for one in _SYSTEM_HEAD.finditer(self.text, 0, offset)]
        return written[-1] if written else ""

    def _fact_head(self, offset: int) -> tuple[str, str] | None:
        """Return the parameter and the case of the fact around an offset, even one that does not parse yet."""
        fact = self._around(offset, Fact)
        if isinstance(fact, Fact):
            return fact.parameter, fact.case
        heads = [(one[1], one[2]) for one in _FACT_HEAD.finditer(self.text, 0, offset)]
        return heads[-1] if heads else None

    def _around(self, offset: int, *kinds: type[Node]) -> Node | None:
        """Return the innermost node of these kinds that an offset is in."""
        found: Node | None = None
        for one in nodes(self.module):
            inside = isinstance(one, kinds) and one.span.start <= offset <= one.span.end
            if inside and (found is None or _length(one) <= _length(found)):
                found = one
        return found

    def _local(self, chain: str, offset: int) -> str | None:
        """Say what a name is that only its surroundings know: a fact's item, a variable, an argument."""
        fact = self._around(offset, Fact)
        head, _, rest = chain.partition(".")
        if isinstance(fact, Fact) and head == fact.parameter:
            case = self.index.find("case", fact.case, self._system(offset))
            if case is None:
                return None
            if not rest:
                return f"`{head}`: the item of `{case.full}` that the fact looks at\n\n{declared(case)}"
            return self._field_words(case, rest)
        action = self._around(offset, Action)
        if isinstance(action, Action) and any(one.key == chain for one in action.arguments if _on_key(one, offset)):
            spec = self._parameter(action.name, chain)
            return None if spec is None else parameter_doc(chain, spec, action.name)
        for node, name in self._local_declarations(chain, offset):
            kind = {Action: "the result of an action", Assign: "a variable", For: "an item of a list"}
            what = kind.get(type(node), "a parameter")
            return f"`{name}`: {what}, line {node.span.line}"
        return None

    def _global(self, chain: str, offset: int) -> str | None:
        entry = self._entry(chain, offset)
        if entry is not None:
            return declared(entry)
        field = self._field(chain, offset)
        if field is not None:
            return self._field_words(*field)
        if chain in self.tools:
            signature = self.tools[chain]
            lines = [f"- {parameter_doc(name, spec, None)}" for name, spec in signature.parameters.items()]
            return f"**{chain}** ({signature.effect}) returns {signature.returns}\n\n{signature.doc}\n\n" + "\n".join(
                lines
            )
        if chain in CONDITIONS:
            return f"**{chain}**: {CONDITIONS[chain].doc}"
        if chain in SCALAR_FUNCTIONS or chain in AGGREGATES:
            return function_doc(chain)
        if chain in UNITS:
            return f"`{chain}`: a unit of {describe_dimension(UNITS[chain])}"
        return f"`{chain}`: a built-in type" if chain in SCALARS else None

    def _entry(self, chain: str, offset: int) -> Entry | None:
        system = self._system(offset)
        for kind in _NAMED:
            found = self.index.candidates(kind, chain, system)
            if found:
                return found[0]
        return None

    def _field(self, chain: str, offset: int) -> tuple[Entry, str] | None:
        """Return the case or type whose field the last part of a dotted name is."""
        owner, _, name = chain.rpartition(".")
        system = self._system(offset)
        fact = self._around(offset, Fact)
        wanted: list[Entry | None] = []
        if isinstance(fact, Fact) and owner == fact.parameter:
            wanted.append(self.index.find("case", fact.case, system))
        emit = self._around(offset, Emit)
        if isinstance(emit, Emit) and not owner:
            wanted.append(self.index.find("case", emit.case, system))
        if owner or self._after_dot(offset):
            wanted += [self.index.find("case", owner, system), *self.index.of("case"), *self.index.of("type")]
        for entry in wanted:
            declaration = None if entry is None else entry.node
            if isinstance(declaration, (Case, TypeDecl)) and any(one.name == name for one in declaration.fields):
                assert entry is not None
                return entry, name
        return None

    def _after_dot(self, offset: int) -> bool:
        start = offset
        while start and (self.text[start - 1].isalnum() or self.text[start - 1] == "_"):
            start -= 1
        return self.text[start - 1 : start] == "."

    def _field_words(self, entry: Entry, name: str) -> str | None:
        type_ = self._field_types(entry).get(name)
        return None if type_ is None else f"`{name}`: {type_words(type_)}, a field of `{entry.full}`"

    def _field_types(self, entry: Entry) -> Mapping[str, Type]:
        found = self.index.type_named(entry.name, entry.system)
        return (found.fields if found is not None else None) or {}

    def _parameter(self, action: str, name: str) -> ParameterSpec | None:
        signature = self.tools.get(action)
        found = signature.parameters.get(name) if signature is not None else None
        return found or EVERY_ACTION.get(name)

    def _local_declarations(self, chain: str, offset: int) -> Iterator[tuple[Node, str]]:
        """Yield what gives a name a value in the loop, function or fact around an offset."""
        head = chain.partition(".")[0]
        if head != chain and not self._is_variable(head, offset):
            return
        fact = self._around(offset, Fact)
        if isinstance(fact, Fact):
            if head == fact.parameter and chain == head:
                yield fact, head
            return
        function = self._around(offset, Function, Procedure)
        if isinstance(function, (Function, Procedure)):
            yield from ((one, head) for one in function.parameters if one.name == head)
        owner = self._around(offset, *_OWNERS)
        if owner is None:
            return
        if isinstance(owner, Handler) and head in owner.parameters:
            yield owner, head
        if isinstance(owner, EngineeringLoop):
            yield from ((one, head) for one in owner.parameters if one.key == head)
        for one in nodes(owner):
            if (isinstance(one, Action) and one.output == head) or (
                isinstance(one, (Assign, For)) and one.name == head
            ):
                yield one, head

    def _is_variable(self, head: str, offset: int) -> bool:
        owner = self._around(offset, *_OWNERS)
        return owner is not None and chain_is_plain(head) and head in set(assigned((owner,)))

    # Where it is ------------------------------------------------------------------------------------------------

    def _used_file(self, offset: int) -> Target | None:
        for use in self.module.uses:
            if use.span.start <= offset <= use.span.end:
                read = self._read(use)
                return None if read is None else Target(read[0], read[1], 0, 0)
        return None

    def _read(self, use: Use) -> tuple[str, str] | None:
        try:
            read = find_used(use.target, self.path, Sources(self.tools))
        except KnowledgeError:
            return None
        return read.path, self.open_texts.get(use.target, read.text)

    def _of_entry(self, entry: Entry, name: str) -> Target | None:
        if not entry.foreign:
            return self._target(entry.node, name, self.text, self.path)
        return self._foreign(entry, name, self.module.uses, self.path, frozenset())

    def _foreign(self, entry: Entry, name: str, uses: Iterable[Use], path: str, seen: frozenset[str]) -> Target | None:
        for use in uses:
            try:
                read = find_used(use.target, path, Sources(self.tools))
            except KnowledgeError:
                continue
            if read.path in seen:
                continue
            text = self.open_texts.get(use.target, read.text)
            module = parse(text, read.path).module
            there = index_of(module).find(entry.kind, entry.full)
            if there is not None:
                return self._target(there.node, name, text, read.path)
            deeper = self._foreign(entry, name, module.uses, read.path, seen | {read.path})
            if deeper is not None:
                return deeper
        return None

    @staticmethod
    def _target(node: Node, name: str, text: str, path: str) -> Target:
        """Narrow a declaration to its name."""
        found = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)").search(
            text, node.span.start, max(node.span.end, node.span.start)
        )
        start, end = found.span() if found else (node.span.start, node.span.end)
        return Target(str(Path(path)) if not path.startswith("<") else path, text, start, end)

    # What could stand here --------------------------------------------------------------------------------------

    def complete(self, offset: int) -> list[Suggestion]:
        """Return the words that could stand at an offset, those of the surroundings first."""
        start = self.text.rfind("\n", 0, offset) + 1
        before = self.text[start:offset]
        chain = re.search(r"([^\W\d]\w*(?:\([^()]*\))?(?:\.\w*)*)$", before)
        written = chain.group() if chain else ""
        if re.search(r"\buse\s+[\w.]*$", before):
            return [Suggestion(name, "module") for name in library()]
        if "." in written:
            return self._members(written.rpartition(".")[0], offset)
        if re.search(r"\bin\s+[\w/%]*$", before) and re.search(r":\s*(int|float)\s+in\s+[\w/%]*$", before):
            return [Suggestion(name, "unit", describe_dimension(one)) for name, one in UNITS.items()]
        return list(self._words(offset, before))

    def _members(self, owner: str, offset: int) -> list[Suggestion]:
        if owner in ("tool", "llm"):
            return [
                Suggestion(name.partition(".")[2], "function", one.doc)
                for name, one in self.tools.items()
                if name.startswith(f"{owner}.")
            ]
        if owner == "trace":
            return [Suggestion("latest", "property", "the latest item"), Suggestion("all", "property", "all items")]
        system = self._system(offset)
        fact = self._fact_head(offset)
        entry: Entry | None = None
        latest = re.fullmatch(r"trace\.(?:latest|all)\((.*)\)", owner)
        if fact is not None and owner == fact[0]:
            entry = self.index.find("case", fact[1], system)
        elif latest is not None:
            entry = self.index.find("case", latest[1], system)
        else:
            entry = self.index.find("case", owner, system)
        if entry is not None:
            return [Suggestion(name, "field", type_words(one)) for name, one in self._field_types(entry).items()]
        cases = [one for one in self.index.of("case") if owner in (one.variant, one.system)]
        if cases:
            return [Suggestion(one.name, "case", one.full) for one in cases]
        if owner.startswith(("trace.latest", "trace.all")):
            return [
                Suggestion(name, "field", f"{type_words(type_)} of {one.full}")
                for one in self.index.of("case")
                for name, type_ in self._field_types(one).items()
            ]
        return [Suggestion(one.name, one.kind, one.full) for one in self.index.entries if one.system == owner]

    def _words(self, offset: int, before: str) -> Iterator[Suggestion]:
        action = self._around(offset, Action)
        if (
            isinstance(action, Action)
            and re.search(r"(?:^|[{,;\s])\w*$", before)
            and not re.search(r":\s*\S*$", before)
        ):
            signature = self.tools.get(action.name)
            given = {one.key for one in action.arguments}
            specs = {**(signature.parameters if signature is not None else {}), **EVERY_ACTION}
            for name, spec in specs.items():
                if name not in given:
                    yield Suggestion(name, "property", spec.doc)
        emit = self._around(offset, Emit)
        if isinstance(emit, Emit):
            entry = self.index.find("case", emit.case, self._system(offset))
            if entry is not None:
                yield from (
                    Suggestion(name, "field", type_words(one)) for name, one in self._field_types(entry).items()
                )
        yield from self._names(offset)
        yield from (Suggestion(name, "keyword") for name in KEYWORDS)

    def _names(self, offset: int) -> Iterator[Suggestion]:
        owner = self._around(offset, *_OWNERS)
        if owner is not None:
            yield from (Suggestion(name, "variable") for name in dict.fromkeys(assigned((owner,))))
        if isinstance(owner, EngineeringLoop):
            yield from (Suggestion(one.key, "variable", "parameter") for one in owner.parameters)
        fact = self._around(offset, Fact)
        if isinstance(fact, Fact):
            yield Suggestion(fact.parameter, "variable", f"the item of {fact.case}")
        function = self._around(offset, Function, Procedure)
        if isinstance(function, (Function, Procedure)):
            yield from (Suggestion(one.name, "variable", "parameter") for one in function.parameters)
        seen: set[tuple[str, str]] = set()
        for entry in self.index.entries:
            if (entry.kind, entry.name) not in seen and chain_is_plain(entry.name):
                seen.add((entry.kind, entry.name))
                yield Suggestion(entry.name, entry.kind, entry.full)
        yield from (
            Suggestion(name, "function", function_doc(name)) for name in sorted({*SCALAR_FUNCTIONS, *AGGREGATES})
        )
        yield from (Suggestion(name, "function", one.doc) for name, one in self.tools.items())
        yield from (Suggestion(name, "type") for name in ("int", "float", "string", "boolean"))


def chain_is_plain(name: str) -> bool:
    """Tell whether a name can be written without quotes."""
    return _WORD.fullmatch(name) is not None


def _length(node: Node) -> int:
    return node.span.end - node.span.start


def _on_key(one: Property, offset: int) -> bool:
    return one.span.start <= offset <= one.span.start + len(one.key)
