"""`facts`, `facts_now`, `rules_fired` and what else is said of all systems together: views over what each has."""

from collections.abc import Collection, Mapping, Sequence

from morphogen.schemas import json_text
from morphogen.schemas.knowledge.stream import text

from ..fold.batch import Batch
from ..projection import Projection, Rows
from .case_tables import case_projection, table_of
from .fact_changes import changes_table, facts_projection, fired_table
from .modules import Module
from .naming import fact_view
from .sql import text_literal

_PLACE = "seq, idx, part, run, attempt, rank, step, time"
_NO_PLACE = (
    "NULL::BIGINT AS seq, NULL::INTEGER AS idx, NULL::INTEGER AS part, NULL::VARCHAR AS run, NULL::INTEGER AS attempt, "
    "NULL::INTEGER AS rank, NULL::BIGINT AS step, NULL::TIMESTAMP_NS AS time"
)


class Catalog(Projection, name="fact_catalog", version=1, types=("knowledge.loaded",)):
    """Views alone; made anew whenever a system comes, goes, or has been built."""

    def __init__(self, modules: Sequence[Module], live: Collection[str]) -> None:
        self.views: Mapping[str, str] = {
            "facts": _facts(modules, live),
            "facts_now": """
                SELECT system, fact, run, key, holds, evidence, time AS since, seq, idx, part, step, event FROM facts
                QUALIFY row_number() OVER (
                    PARTITION BY system, fact, run, key::VARCHAR ORDER BY seq DESC, idx DESC, part DESC
                ) = 1
            """,
            "rules_fired": _fired(modules, live),
            "knowledge_facts": _fact_list(modules),
            "knowledge_rules": _rule_list(modules),
            "trace_rejected": _rejected(modules, live),
        }

    def fold(self, batch: Batch) -> Rows:
        """Return nothing: there is no table."""
        return {}


def _facts(modules: Sequence[Module], live: Collection[str]) -> str:
    parts = [
        f"SELECT {_PLACE}, {text_literal(one.system)} AS system, fact, holds, first, key, evidence, event "
        f"FROM {changes_table(one.system)}"
        for one in modules
        if _is_live(one, live)
    ]
    none = (
        f"SELECT {_NO_PLACE}, NULL::VARCHAR AS system, NULL::VARCHAR AS fact, NULL::BOOLEAN AS holds, "
        "NULL::BOOLEAN AS first, NULL::JSON AS key, NULL::JSON AS evidence, NULL::VARCHAR AS event WHERE false"
    )
    return " UNION ALL ".join(parts or [none])


def _fired(modules: Sequence[Module], live: Collection[str]) -> str:
    parts = [
        f"SELECT {_PLACE}, {text_literal(one.system)} AS system, kind, name, key, evidence, event "
        f"FROM {fired_table(one.system)}"
        for one in modules
        if _is_live(one, live)
    ]
    none = (
        f"SELECT {_NO_PLACE}, NULL::VARCHAR AS system, NULL::VARCHAR AS kind, NULL::VARCHAR AS name, NULL::JSON AS key, "
        "NULL::JSON AS evidence, NULL::VARCHAR AS event WHERE false"
    )
    return " UNION ALL ".join(parts or [none])


def _rejected(modules: Sequence[Module], live: Collection[str]) -> str:
    parts = []
    for module in modules:
        for info in module.cases.values():
            projection = case_projection(info)
            if projection is not None and projection.name in live:
                parts.append(
                    f'SELECT seq, idx, run, attempt, rank, step, time, {text_literal(info.name)} AS "case", reason '
                    f"FROM _{table_of(info)}_no"
                )
    none = (
        "SELECT NULL::BIGINT AS seq, NULL::INTEGER AS idx, NULL::VARCHAR AS run, NULL::INTEGER AS attempt, NULL::INTEGER "
        'AS rank, NULL::BIGINT AS step, NULL::TIMESTAMP_NS AS time, NULL::VARCHAR AS "case", NULL::VARCHAR AS reason '
        "WHERE false"
    )
    return " UNION ALL ".join(parts or [none])


def _fact_list(modules: Sequence[Module]) -> str:
    rows: list[tuple[str | None, ...]] = []
    for module in modules:
        for name, one in module.facts.items():
            own = name.partition(".")[2]
            rows.append((module.system, own, one.case, text(one.body), fact_view(module.system, own), None))
        refused = {name: why for name, why in module.refused.items() if name in module.program.facts}
        rows += [
            (module.system, name.partition(".")[2], module.program.facts[name].case, None, None, why)
            for name, why in refused.items()
        ]
    return _values(rows, ("system", "fact", '"case"', "condition", "view_name", "refused"))


def _rule_list(modules: Sequence[Module]) -> str:
    rows: list[tuple[str | None, ...]] = []
    for module in modules:
        rows += [
            (module.system, one.kind, _own(one.name), "true", None, json_text(one.actions), None)
            for one in module.judges
        ]
        for one in module.advice:
            advice = json_text(list(one.conditions))
            rows.append((module.system, one.kind, _own(one.name), "false", advice, json_text(one.actions), None))
        known = {*module.program.rules, *module.program.hints}
        rows += [
            (module.system, "rule" if name in module.program.rules else "hint", _own(name), "false", None, None, why)
            for name, why in module.refused.items()
            if name in known
        ]
    found = _values(rows, ("system", "kind", "name", "executable", "advice", "actions", "refused"))
    return (
        "SELECT system, kind, name, executable::BOOLEAN AS executable, advice::JSON AS advice, actions::JSON AS actions, "
        f"refused FROM ({found})"
    )


def _values(rows: Sequence[tuple[str | None, ...]], names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    if not rows:
        return "SELECT " + ", ".join(f"NULL::VARCHAR AS {name}" for name in names) + " WHERE false"
    lines = ", ".join(
        "(" + ", ".join("NULL::VARCHAR" if value is None else text_literal(value) for value in row) + ")"
        for row in rows
    )
    return f"SELECT * FROM (VALUES {lines}) AS listed({columns})"


def _is_live(module: Module, live: Collection[str]) -> bool:
    projection = facts_projection(module)
    return projection is not None and projection.name in live


def _own(name: str) -> str:
    return name.partition(".")[2] or name
