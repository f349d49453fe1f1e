"""What the systems in force have, as the parts of the catalog's views."""

from collections.abc import Collection, Iterator, Sequence

from morphogen.schemas import json_text
from morphogen.schemas.knowledge.stream import text

from .case_tables import case_projection, table_of
from .catalog import Listing
from .fact_changes import changes_table, facts_projection, fired_table
from .modules import Module
from .naming import fact_view
from .sql import text_literal

_PLACE = "seq, idx, part, run, attempt, rank, step, time"


def listed(modules: Sequence[Module], live: Collection[str]) -> Listing:
    """Return what these systems have; of their tables only those that are `live`."""
    built = [one for one in modules if _is_live(one, live)]
    return Listing(
        facts=tuple(
            f"SELECT {_PLACE}, {text_literal(one.system)} AS system, fact, holds, first, key, evidence, event "
            f"FROM {changes_table(one.system)}"
            for one in built
        ),
        fired=tuple(
            f"SELECT {_PLACE}, {text_literal(one.system)} AS system, kind, name, key, evidence, event "
            f"FROM {fired_table(one.system)}"
            for one in built
        ),
        rejected=tuple(part for one in modules for part in _rejected(one, live)),
        every_fact=tuple(row for one in modules for row in _facts(one)),
        every_rule=tuple(row for one in modules for row in _rules(one)),
    )


def _rejected(module: Module, live: Collection[str]) -> Iterator[str]:
    for info in module.cases.values():
        projection = case_projection(info)
        if projection is not None and projection.name in live:
            yield (
                f'SELECT seq, idx, run, attempt, rank, step, time, {text_literal(info.name)} AS "case", reason '
                f"FROM _{table_of(info)}_no"
            )


def _facts(module: Module) -> Iterator[str]:
    for name, one in module.facts.items():
        own = name.partition(".")[2]
        yield _row(module.system, own, one.case, text(one.body), fact_view(module.system, own), None)
    for name, why in module.refused.items():
        if name in module.program.facts:
            yield _row(module.system, name.partition(".")[2], module.program.facts[name].case, None, None, why)


def _rules(module: Module) -> Iterator[str]:
    for judge in module.judges:
        yield _row(module.system, judge.kind, _own(judge.name), "true", None, json_text(judge.actions), None)
    for one in module.advice:
        advice = json_text(list(one.conditions))
        yield _row(module.system, one.kind, _own(one.name), "false", advice, json_text(one.actions), None)
    known = {*module.program.rules, *module.program.hints}
    for name, why in module.refused.items():
        if name in known:
            kind = "rule" if name in module.program.rules else "hint"
            yield _row(module.system, kind, _own(name), "false", None, None, why)


def _row(*values: str | None) -> str:
    return "(" + ", ".join("NULL::VARCHAR" if value is None else text_literal(value) for value in values) + ")"


def _is_live(module: Module, live: Collection[str]) -> bool:
    projection = facts_projection(module)
    return projection is not None and projection.name in live


def _own(name: str) -> str:
    return name.partition(".")[2] or name
