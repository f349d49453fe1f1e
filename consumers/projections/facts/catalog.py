"""`facts`, `facts_now`, `rules_fired` and what else is said of all systems together: views over what each has."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..fold.batch import Batch
from ..projection import Projection, Rows

_NO_PLACE = (
    "NULL::BIGINT AS seq, NULL::INTEGER AS idx, NULL::INTEGER AS part, NULL::VARCHAR AS run, NULL::INTEGER AS attempt, "
    "NULL::INTEGER AS rank, NULL::BIGINT AS step, NULL::TIMESTAMP_NS AS time"
)
_NO_FACTS = (
    f"SELECT {_NO_PLACE}, NULL::VARCHAR AS system, NULL::VARCHAR AS fact, NULL::BOOLEAN AS holds, "
    "NULL::BOOLEAN AS first, NULL::JSON AS key, NULL::JSON AS evidence, NULL::VARCHAR AS event WHERE false"
)
_NONE_FIRED = (
    f"SELECT {_NO_PLACE}, NULL::VARCHAR AS system, NULL::VARCHAR AS kind, NULL::VARCHAR AS name, NULL::JSON AS key, "
    "NULL::JSON AS evidence, NULL::VARCHAR AS event WHERE false"
)
_NONE_REJECTED = (
    "SELECT NULL::BIGINT AS seq, NULL::INTEGER AS idx, NULL::VARCHAR AS run, NULL::INTEGER AS attempt, NULL::INTEGER "
    'AS rank, NULL::BIGINT AS step, NULL::TIMESTAMP_NS AS time, NULL::VARCHAR AS "case", NULL::VARCHAR AS reason '
    "WHERE false"
)


@dataclass(frozen=True)
class Listing:
    """What systems have, as SQL: selects of facts, of fired rules and of rejected items, and literal rows."""

    facts: tuple[str, ...] = ()
    fired: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    every_fact: tuple[str, ...] = ()
    every_rule: tuple[str, ...] = ()


class Catalog(Projection, name="fact_catalog", version=1, types=("knowledge.loaded",)):
    """Views alone; made anew whenever a system comes, goes, or has been built."""

    def __init__(self, listing: Listing = Listing()) -> None:
        rules = _values(listing.every_rule, ("system", "kind", "name", "executable", "advice", "actions", "refused"))
        self.views: Mapping[str, str] = {
            "facts": " UNION ALL ".join(listing.facts or [_NO_FACTS]),
            "facts_now": """
                SELECT system, fact, run, key, holds, evidence, time AS since, seq, idx, part, step, event FROM facts
                QUALIFY row_number() OVER (
                    PARTITION BY system, fact, run, key::VARCHAR ORDER BY seq DESC, idx DESC, part DESC
                ) = 1
            """,
            "rules_fired": " UNION ALL ".join(listing.fired or [_NONE_FIRED]),
            "knowledge_facts": _values(
                listing.every_fact, ("system", "fact", '"case"', "condition", "view_name", "refused")
            ),
            "knowledge_rules": "SELECT system, kind, name, executable::BOOLEAN AS executable, advice::JSON AS advice, "
            f"actions::JSON AS actions, refused FROM ({rules})",
            "trace_rejected": " UNION ALL ".join(listing.rejected or [_NONE_REJECTED]),
        }

    def fold(self, batch: Batch) -> Rows:
        """Return nothing: there is no table."""
        return {}


def _values(rows: tuple[str, ...], names: tuple[str, ...]) -> str:
    if not rows:
        return "SELECT " + ", ".join(f"NULL::VARCHAR AS {name}" for name in names) + " WHERE false"
    return f"SELECT * FROM (VALUES {', '.join(rows)}) AS listed({', '.join(names)})"
