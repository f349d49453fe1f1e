"""Conditions that can never hold, and rules that contradict each other. Works on the tree with its units converted.

Two rules of one system contradict each other when whenever the one fires the other surely fires too (its conditions are
the same, or follow), and they then want opposite things: values of one parameter that share none, `optimize` in opposite
directions, or texts of which one forbids what the other asks for (`X` and `avoid X`, `enable X` and `disable X`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..index import Entry, Index
from ..tree import Expr, Fact, Hint, Invariant, ListExpr, Literal, MapExpr, Name, RangeExpr, Rule, Template
from .declarations import in_space, text_of
from .knowledge import case_of, is_text
from .reach import Clause, Reach, folded, terms_of
from .report import Report

_MOST_PAIRS = 5_000  # of rules of one system that look at the same things; beyond, pairs are not compared
_AGAINST = ("do not ", "don't ", "never ", "avoid ", "without ", "not ", "no ", "disable ", "stop ", "turn off ")
_FOR = ("enable ", "always ", "use ", "prefer ", "start ", "turn on ")


@dataclass(frozen=True, slots=True)
class _Fires:
    """When a rule fires, and the texts that are part of its condition."""

    entry: Entry
    rule: Rule
    clauses: list[Clause]
    texts: frozenset[str]
    terms: frozenset[Expr]


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Looks for what can never be, and for what cannot be at once."""

    report: Report
    index: Index
    reach: Reach

    def look(self) -> None:
        """Check every fact, rule, hint and invariant of the module itself."""
        for entry in self._own("fact"):
            self._fact(entry)
        rules = []
        for entry in self._own("rule"):
            assert isinstance(entry.node, Rule)
            fires = self._fires(entry, entry.node)
            if fires is not None:
                rules.append(fires)
        for entry in self._own("hint"):
            assert isinstance(entry.node, Hint)
            self._can_fire(entry, entry.node.trigger, "hint")
        for entry in self._own("invariant"):
            assert isinstance(entry.node, Invariant)
            self._invariant(entry, entry.node)
        for system in dict.fromkeys(one.entry.system for one in rules):
            self._pairs([one for one in rules if one.entry.system == system])

    def _own(self, kind: str) -> list[Entry]:
        return [entry for entry in self.index.entries if entry.kind == kind and not entry.foreign]

    def _fact(self, entry: Entry) -> None:
        fact = entry.node
        assert isinstance(fact, Fact)
        case = case_of(entry, self.index)
        if case is None:
            return
        clauses = self.reach.clauses((fact.body,), entry.system, (fact.parameter, case))
        why = self.reach.impossible(clauses)
        if self.report.wrong_in(fact.body):
            return  # what is misspelled says nothing yet
        if why is not None:
            self.report.add("K305", fact.body, f"the fact `{fact.name}` can never hold: {why}")
        elif (constant := folded(fact.body)) is not None and constant[0] is True:
            self.report.add("K307", fact.body, f"the fact `{fact.name}` holds on every item")

    def _fires(self, entry: Entry, rule: Rule) -> _Fires | None:
        clauses = self._can_fire(entry, rule.when, "rule")
        if clauses is None:
            return None
        texts = frozenset(_words(one) for one in rule.when if is_text(one))
        terms = frozenset(term for clause in clauses for atom in clause for term in terms_of(atom))
        return _Fires(entry, rule, clauses, texts, terms)

    def _can_fire(self, entry: Entry, conditions: Sequence[Expr], what: str) -> list[Clause] | None:
        """Return when a rule or hint fires, None where that is never, after saying so."""
        executable = [one for one in conditions if not is_text(one)]
        clauses = self.reach.clauses(executable, entry.system)
        if any(map(self.report.wrong_in, executable)):
            return None
        why = self.reach.impossible(clauses)
        if why is not None:
            self.report.add("K306", executable[0], f"the {what} `{entry.name}` can never fire: {why}")
            return None
        for one in executable:
            constant = folded(one)
            if constant is not None and constant[0] is True:
                self.report.add("K307", one, f"this condition of the {what} `{entry.name}` always holds")
        return clauses if conditions else None

    def _invariant(self, entry: Entry, invariant: Invariant) -> None:
        for one in invariant.asserts:
            if is_text(one) or self.report.wrong_in(one):
                continue
            why = self.reach.impossible(self.reach.clauses((one,), entry.system))
            if why is not None:
                self.report.add("K316", one, f"the invariant `{entry.name}` can never hold: {why}")

    def _pairs(self, rules: list[_Fires]) -> None:
        left = _MOST_PAIRS
        for place, later in enumerate(rules):
            for earlier in rules[:place]:
                if later.terms.isdisjoint(earlier.terms) and (later.terms or earlier.terms):
                    continue  # they look at different things, so neither follows from the other
                left -= 1
                if left < 0:
                    return
                follows = self._follows(earlier, later)
                if not follows:
                    continue
                against = _opposed(earlier.rule, later.rule)
                line = earlier.rule.span.line
                other = f"`{earlier.rule.name}` (line {line})"
                if against is not None:
                    self.report.add("K308", later.rule, f"the rule `{later.rule.name}` contradicts {other}: {against}")
                elif follows == "same":
                    self.report.add(
                        "K309", later.rule, f"the rule `{later.rule.name}` has the same condition as {other}; both fire"
                    )

    def _follows(self, one: _Fires, other: _Fires) -> str | None:
        """Tell whether one of two rules fires whenever the other does; "same" where that goes both ways."""
        forth = one.texts >= other.texts and self._implies(one, other)
        back = other.texts >= one.texts and self._implies(other, one)
        return "same" if forth and back else "follows" if forth or back else None

    def _implies(self, one: _Fires, other: _Fires) -> bool:
        if other.clauses == [()]:  # nothing but text, which is compared by itself
            return bool(other.texts) and one.texts >= other.texts and all(is_text(each) for each in other.rule.when)
        return self.reach.implies(one.clauses, other.clauses)


def _opposed(one: Rule, other: Rule) -> str | None:
    """Say what two rules want that cannot be had at once; None where nothing is."""
    theirs = dict(_settings(other))
    for name, value in _settings(one):
        if name in theirs and _disjoint(value, theirs[name]):
            return f"they want {_values(value)} and {_values(theirs[name])} of `{name}`"
    first, second = _direction(one.optimize), _direction(other.optimize)
    if first and second and first[0] != second[0] and first[1] == second[1]:
        return f"they optimize `{first[1] or 'the metric'}` in opposite directions"
    for mine in map(_polarity, _texts(one)):
        for yours in map(_polarity, _texts(other)):
            if mine and yours and mine[1] == yours[1] and mine[0] != yours[0]:
                return f'one asks for "{mine[1]}" and the other forbids it'
    return None


def _settings(rule: Rule) -> Iterable[tuple[str, Expr]]:
    for parameter in rule.parameters:
        yield parameter.key, parameter.value
    for action in (*rule.apply, *rule.recommend):
        if isinstance(action, MapExpr):
            for one in action.items:
                yield one.key, one.value


def _disjoint(one: Expr, other: Expr) -> bool:
    """Tell whether two spaces or values surely share nothing."""
    for left, right in ((one, other), (other, one)):
        if isinstance(left, (ListExpr, Literal, Name)):
            values = left.items if isinstance(left, ListExpr) else (left,)
            space = right if isinstance(right, (ListExpr, RangeExpr)) else ListExpr((right,))
            if values and all(isinstance(each, (Literal, Name)) for each in values) and _constant_space(space):
                return not any(in_space(each, space) for each in values)
    return False


def _constant_space(space: Expr) -> bool:
    if isinstance(space, ListExpr):
        return bool(space.items) and all(isinstance(each, (Literal, Name)) for each in space.items)
    return isinstance(space, RangeExpr)


def _values(value: Expr) -> str:
    if isinstance(value, ListExpr):
        return f"[{', '.join(text_of(one) for one in value.items)}]"
    return f"{text_of(value.low)}..{text_of(value.high)}" if isinstance(value, RangeExpr) else text_of(value)


def _direction(value: Expr | None) -> tuple[str, str] | None:
    words = _words(value).split(maxsplit=1) if value is not None else []
    if not words or words[0] not in ("maximize", "minimize"):
        return None
    return words[0], words[1] if len(words) > 1 else ""


def _texts(rule: Rule) -> list[str]:
    return [text for text in map(_words, (*rule.apply, *rule.recommend)) if text]


def _polarity(text: str) -> tuple[bool, str] | None:
    """Tell whether a text asks for something or forbids it, and what that is."""
    for words, sign in ((_AGAINST, False), (_FOR, True)):
        for word in words:
            if text.startswith(word):
                return sign, text[len(word) :].removeprefix("use ").removeprefix("using ").strip()
    return True, text


def _words(value: Expr) -> str:
    """Return a text without what does not change its meaning."""
    if isinstance(value, Template):
        text = " ".join(part for part in value.parts if isinstance(part, str))
    elif isinstance(value, Literal) and isinstance(value.value, str):
        text = value.value
    elif isinstance(value, Name):
        text = value.name.replace("_", " ")
    else:
        return ""
    return " ".join(text.casefold().rstrip(" .!").split())
