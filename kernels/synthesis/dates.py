"""Dates as texts: another date and a number of days, workdays or months, each explained in turn."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from .operators import FUNCTIONS
from .program import Expr, Op
from .values import is_date

if TYPE_CHECKING:
    from .explaining import Explainer


def dated(at: "Explainer", target: Sequence[str]) -> Expr | None:
    """Return an expression with these dates, or None."""
    try:
        days = [date.fromisoformat(value).toordinal() for value in target]
    except ValueError:
        return None
    bases = [entry for entry in at.bank.of_kind("str") if entry.size <= 4 and all(is_date(one) for one in entry.values)]
    for base in bases[:8]:
        try:
            starts = [date.fromisoformat(value) for value in base.values]
        except ValueError:
            continue
        apart = [day - start.toordinal() for day, start in zip(days, starts, strict=True)]
        for name, counts in (
            ("date_add", apart),
            ("add_workdays", _workdays(starts, days)),
            ("add_months", _months(starts, target)),
        ):
            if counts is None:
                continue
            found = at.once(counts)
            if found is not None and (name != "date_add" or any(apart)):
                made = [FUNCTIONS[name](start, count) for start, count in zip(base.values, counts, strict=True)]
                if made == list(target):
                    return Op(name, (base.expr, found))
        rolled = at.bank.op("on_workday", base.size + 2, base)
        if rolled is not None and rolled.values == list(target):
            return rolled.expr
    return _rolled(at, target, days)


def _rolled(at: "Explainer", target: Sequence[str], days: Sequence[int]) -> Expr | None:
    """Find dates that were moved to the Monday after where they fell on a weekend."""
    mondays = [value for value, day in zip(target, days, strict=True) if day % 7 == 1]
    if at.level > 1 or not mondays or any(day % 7 in (6, 0) for day in days):
        return None
    for base in [
        one for one in at.bank.of_kind("str") if one.size <= 2 and all(is_date(value) for value in one.values)
    ][:3]:
        starts = [date.fromisoformat(value).toordinal() for value in base.values]
        for step in at.bank.of_kind("int")[:60]:
            plain = [start + count for start, count in zip(starts, step.values, strict=True)]
            if not all(0 <= day - one <= 2 for day, one in zip(days, plain, strict=True)):
                continue
            moved = at.bank.op("date_add", base.size + step.size + 1, base, step)
            rolled = at.bank.op("on_workday", base.size + step.size + 2, moved) if moved is not None else None
            if rolled is not None and rolled.values == list(target):
                return rolled.expr
    return None


def _workdays(starts: Sequence[date], days: Sequence[int]) -> list[int] | None:
    counts = []
    for start, day in zip(starts, days, strict=True):
        if not 0 <= day - start.toordinal() <= 3000:
            return None
        counts.append(sum(date.fromordinal(one).weekday() < 5 for one in range(start.toordinal() + 1, day + 1)))
    return counts


def _months(starts: Sequence[date], target: Sequence[str]) -> list[int] | None:
    ends = [date.fromisoformat(value) for value in target]
    return [(end.year - start.year) * 12 + end.month - start.month for start, end in zip(starts, ends, strict=True)]
