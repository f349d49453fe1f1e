"""Items with the truth of window facts, stored as the stream folds them.

A window asks of an item what came before it: as a view over ten million items it sorts them all at each question. So the
truth of each item is a column of a table that only grows, like any other that a projection makes: rebuilt from the log,
cut by `--as-of`, made anew when the facts are others. Facts on the item alone stay views over the table of their case.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import Condition, Over, Verdicts, walk

from ..fold.arrays import flags, from_numpy
from ..fold.batch import Batch
from ..fold.rows import Columns
from ..projection import FRONT
from .case_tables import item_columns, relation_of, sql_columns
from .items import Places, Read
from .naming import judged_table, own_name, truth_columns
from .sql import quoted


class Judged:
    """The stored truth of one system's window facts over one case."""

    def __init__(self, system: str, info: CaseInfo, facts: Sequence[Condition]) -> None:
        self.info = info
        self.facts = [one for one in facts if windowed(one)]
        self.table = judged_table(system, info.name)
        fields = sql_columns(info)
        names = truth_columns([own_name(one.name) for one in self.facts], [*FRONT, "part", *fields])
        self._truths = dict(zip([one.name for one in self.facts], names.values(), strict=True))
        columns = {"part": "INTEGER", **fields, **dict.fromkeys(self._truths.values(), "BOOLEAN")}
        self.columns = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())

    def view(self, fact: str) -> str:
        """Return the SELECT of one fact: its items, `truth` (NULL is unknown) and `holds`."""
        shown = ", ".join(map(quoted, relation_of(self.info).shown))
        truth = quoted(self._truths[fact])
        return f"SELECT {shown}, {truth} AS truth, coalesce({truth}, false) AS holds FROM {self.table}"

    def truths(self, verdicts: Verdicts) -> dict[str, pa.Array]:
        """Return what is true of each item, by column; NULL is unknown."""
        numbers = {one.name: number for number, one in enumerate(verdicts.engine.conditions)}
        found = {column: verdicts.truth(numbers[fact]) for fact, column in self._truths.items()}
        return {column: flags(truth.true, ~(truth.true | truth.false)) for column, truth in found.items()}

    def rows(self, batch: Batch, read: Read, verdicts: Verdicts) -> Columns:
        """Return the items that were measured, with what is true of them."""
        columns = dict(item_columns(self.info, read, batch))
        if len(verdicts.items) < len(read.at):
            measured = np.flatnonzero(read.measured)
            columns = {name: _cut(column, measured) for name, column in columns.items()}
        return Columns({**columns, **self.truths(verdicts)})


def windowed(condition: Condition) -> bool:
    """Tell whether a fact asks for more than the item that it judges."""
    return any(isinstance(node, Over) for node in walk(condition.body))


def _cut(column: Any, at: Places) -> Any:
    if isinstance(column, list):
        return [column[place] for place in at.tolist()]
    return column.take(from_numpy(at, pa.int64())) if isinstance(column, pa.Array) else column[at]


def judged_of(system: str, facts: Mapping[str, Condition], cases: Mapping[str, CaseInfo]) -> dict[str, Judged]:
    """Return what is stored for a system, by case; only cases with window facts need it."""
    out = {}
    for case in dict.fromkeys(one.case for one in facts.values() if windowed(one)):
        mine = [one for one in facts.values() if one.case == case]
        out[case] = Judged(system, cases[case], mine)
    return out
