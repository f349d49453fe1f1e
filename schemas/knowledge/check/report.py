"""The codes of the checker, and the collector of what it finds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from ..diagnostics import Diagnostic, Severity, did_you_mean
from ..index import Entry, Index, Kind
from ..tree import Expr, Node

CODES: dict[str, tuple[Severity, str]] = {
    # Names
    "K101": ("error", "a name that nothing declares"),
    "K102": ("error", "a field that the case or type does not have"),
    "K103": ("error", "a case that no trace schema declares"),
    "K104": ("error", "a type that nothing declares"),
    "K105": ("error", "a function that does not exist"),
    "K106": ("error", "a fact, loop or artifact that does not exist"),
    "K107": ("error", "a name that is declared twice"),
    "K108": ("error", "a name that could mean several things"),
    "K109": ("error", "a used module that cannot be read"),
    "K110": ("error", "modules that use each other in a circle"),
    "K111": ("error", "a name that a used module declares too"),
    "K112": ("error", "an axiom, heuristic or prediction that the system model does not have"),
    "K113": ("error", "a variable that is read before it has a value"),
    "K114": ("warning", "a variable that may have no value when it is read"),
    "K115": ("warning", "an output that nothing reads"),
    "K116": ("error", "two names that are one word in SQL"),
    "K117": ("error", "a field that no event can have"),
    # Types and units
    "K201": ("error", "kinds that do not go together"),
    "K202": ("error", "units that measure different things"),
    "K203": ("error", "an unknown unit"),
    "K204": ("error", "a value that the enum does not have"),
    "K205": ("error", "a wrong number of arguments"),
    "K206": ("error", "a comparison with null"),
    "K207": ("warning", "a division by zero"),
    "K208": ("error", "a condition that is no condition"),
    "K209": ("error", "a unit on what is no number"),
    # Facts and rules
    "K301": ("error", "an aggregate inside an aggregate"),
    "K302": ("error", "an aggregate where no window can be"),
    "K303": ("error", "a window grouped by a field that the case does not have"),
    "K304": ("error", "a definition that calls itself"),
    "K305": ("error", "a fact that can never hold"),
    "K306": ("error", "a rule or hint that can never fire"),
    "K307": ("warning", "a condition that always holds"),
    "K308": ("error", "rules that contradict each other"),
    "K309": ("note", "two rules with the same condition"),
    "K310": ("note", "a condition in words, kept as advice"),
    "K311": ("error", "a rule without a condition"),
    "K312": ("error", "what a fact may not do"),
    "K313": ("warning", "a count of a condition"),
    "K315": ("error", "an invariant that says nothing"),
    "K316": ("error", "an invariant that can never hold"),
    # Loops
    "K401": ("error", "a tool that does not exist"),
    "K402": ("error", "an argument that the tool does not take"),
    "K403": ("error", "an argument that is missing"),
    "K404": ("error", "an argument of the wrong kind"),
    "K405": ("error", "a language model in a loop that may not ask one"),
    "K406": ("error", "an emitted case with missing fields"),
    "K407": ("warning", "a step or statement that is never reached"),
    "K408": ("error", "arguments of which exactly one must stand"),
    "K409": ("error", "an emit where no case is declared"),
    "K410": ("error", "an action where only reading is allowed"),
    "K411": ("error", "a loop or task without steps"),
    # Sweeps, spaces, artifacts, views
    "K501": ("error", "an empty space"),
    "K502": ("error", "a value outside of the declared space"),
    "K503": ("warning", "a parameter that nothing uses"),
    "K504": ("error", "a metric that no case has"),
    "K505": ("error", "an unknown objective"),
    "K506": ("error", "a sweep that does not say what to measure"),
    "K507": ("error", "a range that goes nowhere"),
    "K508": ("warning", "a value that stands in a space twice"),
    "K510": ("error", "a view without SQL"),
    "K511": ("error", "an artifact without a source"),
}
"""Every code with its severity and what it stands for. A code never changes its meaning."""


@dataclass(slots=True)
class Report:
    """What was found so far, and which expressions stand in another unit or word than they must be read in."""

    found: list[Diagnostic] = field(default_factory=list)
    factors: dict[int, tuple[Fraction, str | None]] = field(default_factory=dict)
    """By identity of an expression: what its value is multiplied with, and the name of the unit that makes."""
    replaced: dict[int, Expr] = field(default_factory=dict)
    """By identity of an expression: what stands in its place."""
    renamed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By identity of a node: the field that names something, and the full name to put there."""

    def add(
        self, code: str, node: Node, message: str, *, hint: str | None = None, expected: Iterable[str] = ()
    ) -> None:
        """Note a finding of this code at a node."""
        severity, _ = CODES[code]
        self.found.append(Diagnostic(code, severity, node.span, message, tuple(expected), hint))

    def unknown(
        self, code: str, node: Node, message: str, name: str, known: Iterable[str], otherwise: str = ""
    ) -> None:
        """Note a name that is not known, offering the nearest one that is."""
        self.add(code, node, message, hint=did_you_mean(name, known) or otherwise or None)

    def name(self, index: Index, kind: Kind, node: Node, field_name: str, entry: Entry) -> None:
        """Note that a node is to name a declaration in full, where its spelling alone could mean another system's."""
        if index.shared(kind, getattr(node, field_name)):
            self.renamed[id(node)] = (field_name, entry.full)

    def wrong_in(self, node: Node) -> bool:
        """Tell whether an error was found inside of a node."""
        span = node.span
        return any(
            one.severity == "error" and span.start <= one.span.start < max(span.end, span.start + 1)
            for one in self.found
        )

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return what was found in the order of the source, each finding once."""
        unique = dict.fromkeys(self.found)
        return tuple(sorted(unique, key=lambda one: (one.span.start, one.span.line, one.span.column, one.code)))
