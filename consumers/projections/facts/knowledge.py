"""`knowledge`: the modules that the log holds, and the projections that they call for."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

from morphogen.schemas import KnowledgeLoaded

from ..fold.batch import Entry
from ..projection import Projection
from .catalog import Catalog
from .loads import Loaded, in_force

_log = logging.getLogger("morphogen.projections")


class Knowledge(Projection, name="knowledge", version=1, types=("knowledge.loaded", "knowledge.dropped")):
    """One row a system of each loaded text; `knowledge` shows the text in force for each system."""

    derives: ClassVar[bool] = True
    tables: Mapping[str, str] = {
        "_knowledge_loaded": "name VARCHAR, path VARCHAR, sha256 VARCHAR, text VARCHAR, used JSON, system VARCHAR",
        "_knowledge_dropped": "system VARCHAR, reason VARCHAR",
    }
    views: Mapping[str, str] = {
        "knowledge": """
            SELECT l.system, l.name, l.path, l.sha256, l.seq, l.idx, l.time AS loaded, d.seq IS NULL AS in_force, l.text
            FROM (
                SELECT * FROM _knowledge_loaded
                QUALIFY row_number() OVER (PARTITION BY system ORDER BY seq DESC, idx DESC) = 1
            ) l LEFT JOIN (SELECT system, max(seq) AS seq FROM _knowledge_dropped GROUP BY system) d
            ON d.system = l.system AND d.seq >= l.seq
        """,
        "knowledge_loaded": "SELECT seq, idx, time, system, name, path, sha256, text FROM _knowledge_loaded",
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield a row for each system of a text, or one for a system that was dropped."""
        body = event.body
        if isinstance(body, KnowledgeLoaded):
            for system in body.systems:
                yield "_knowledge_loaded", (body.name, body.path, body.sha256, body.text, body.used, system)
        else:
            yield "_knowledge_dropped", (body.system, body.reason)

    def derive(self, read: Callable[[str], list[tuple[Any, ...]]], live: Collection[str]) -> list[Projection]:
        """Return the tables and facts of the systems in force."""
        loads: dict[tuple[int, int], Loaded] = {}
        for row in read("_knowledge_loaded"):
            seq, idx, (_, path, sha256, text, used, system) = row[0], row[1], row[7:]
            known = loads.get((seq, idx))
            systems = (*(known.systems if known else ()), system)
            loads[seq, idx] = Loaded(seq, path, sha256, text, tuple(sorted(json.loads(used or "{}").items())), systems)
        drops = [(row[0], row[7]) for row in read("_knowledge_dropped")]
        return projections_of(in_force(list(loads.values()), drops), live)


def projections_of(loaded: dict[str, Loaded], live: Collection[str]) -> list[Projection]:
    """Return what these systems call for: a table for each case, the changes of each system's facts, the catalog."""
    if not loaded:
        return [Catalog()]
    # The language is read where there is something in it: importing it takes longer than a small query does.
    from .case_tables import case_projection
    from .fact_changes import facts_projection
    from .listing import listed
    from .modules import modules_of

    modules = modules_of(loaded)
    found: dict[str, Projection] = {}
    for module in modules:
        made: list[Projection | None] = [case_projection(info) for info in module.cases.values()]
        made.append(facts_projection(module))
        for one in made:
            if one is not None and one.name in found and one.signature != found[one.name].signature:
                _log.error("system %s wants table %s, which another has already: rename it", module.system, one.name)
            elif one is not None:
                found[one.name] = one
    return [*found.values(), Catalog(listed(modules, live))]
