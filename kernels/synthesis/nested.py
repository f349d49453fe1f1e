"""Explains what belongs to each item of a list: the items of all examples in a row, with the simple values around them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bank import Bank, Entry, repeated
from .program import Expr, Ref

if TYPE_CHECKING:
    from .explaining import Explainer

_MOST = 240  # items that are looked at while searching; all are checked at the end


class Nested:
    """The place inside a list: its item under the bank's variable, further lists beside it by name, and what is around."""

    def __init__(
        self, at: "Explainer", over: Entry, beside: Sequence[tuple[str, Sequence[Sequence[Any]]]] = ()
    ) -> None:
        from .explaining import Explainer

        self.lengths = [len(value) for value in over.values]
        items = [item for value in over.values for item in value]
        self.chosen = _spread(len(items))
        bank = Bank(at.bank.search, len(self.chosen), depth=at.bank.depth + 1, most=1500 if at.level == 0 else 500)
        bank.hints = list(at.bank.hints)
        self.bank = bank
        if items:
            bank.add(Ref(at.bank.var), self._of(items), 1, simple=True)
            for name, lists in beside:
                bank.add(Ref(name), self._of([item for value in lists for item in value]), 1, simple=True)
            for one in at.bank.scalars(12):
                bank.add(one.expr, self._of(list(repeated(one.values, self.lengths))), one.size, simple=True)
            for one in [one for one in at.bank.of_kind("dict") if one.size <= 2][:4]:
                bank.add(one.expr, self._of(list(repeated(one.values, self.lengths))), one.size + 1)
        self.inner = Explainer(bank, level=at.level + 1)

    def _of(self, values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in self.chosen]

    def explain(self, values: Sequence[Any], *, conditions: bool = True) -> Expr | None:
        """Return an expression over the item that has these values, one for each item of all examples."""
        return self.inner.explain(self._of(values), conditions=conditions) if self.chosen else None


def _spread(count: int) -> list[int]:
    """Return places all over a row of items: the first ones, and then every so many."""
    if count <= _MOST:
        return list(range(count))
    step = count / _MOST
    return sorted({int(place * step) for place in range(_MOST)} | {count - 1})
