"""The plan of a program while it is made: what is known in every example, and the statements so far."""

from collections.abc import Mapping, Sequence
from typing import Any

from .bank import Bank, Search
from .examples import Doubt, Example
from .explaining import Explainer
from .program import Expr, Op, Ref, Stmt, refs, walk
from .reading import Reading, readings_of
from .running import evaluate
from .values import plain


class Plan:
    """What is known and what is done. `examples` are those that this part of the program is for."""

    def __init__(
        self, examples: Sequence[Example], tools: Mapping[str, str], search: Search, *, goal: str = "", first: int = 0
    ) -> None:
        self.examples = list(examples)
        self.goal = goal
        self.doubts: list[Doubt] = []
        self.tools = tools
        self.search = search
        self.bank = Bank(search, len(self.examples))
        self.explainer = Explainer(self.bank)
        self.body: list[Stmt] = []
        self.sources: list[tuple[str, list[Any]]] = []
        self.readings: list[dict[str, list[Reading]]] = [readings_of(one, tools) for one in self.examples]
        self.taken: list[dict[str, set[bytes]]] = [{} for _ in self.examples]
        self.failed: dict[tuple[str, tuple[bytes, ...]], int] = {}
        self.made = first

    def fresh(self) -> str:
        """Return a name that nothing has yet."""
        self.made += 1
        return f"result{self.made}"

    def source(self, name: str, values: Sequence[Any]) -> None:
        """Make a value known under a name: a parameter, or what a tool gave."""
        known = [plain(value) for value in values]
        self.sources.append((name, known))
        simple = not name.startswith("result") or all(isinstance(value, str | int | float) for value in known)
        short = all(not isinstance(value, str) or len(value) <= 200 for value in known)
        self.bank.add(Ref(name), known, 1, simple=simple and short)
        self.explainer.reached = 0  # what was explained in vain may be explained now

    def reuse(self, expr: Expr) -> None:
        """Count the parts of what was explained as near at hand: what is answered is often what was written."""
        scopes = [{name: values[place] for name, values in self.sources} for place in range(len(self.examples))]
        names = {name for name, _ in self.sources}
        for part in walk(expr):
            if not isinstance(part, Op) or refs(part) - names:
                continue
            try:
                entry = self.bank.find([evaluate(part, scope) for scope in scopes])
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
                continue
            if entry is not None and entry.kind in ("dict", "list"):
                self.bank.cheapen(entry, 2)
        self.explainer.reached = 0

    def hint(self, texts: Sequence[str]) -> None:
        """Name texts that what is looked for holds, so that values are compared with them."""
        self.bank.hints = list(dict.fromkeys([*self.bank.hints, *texts]))[:24]
