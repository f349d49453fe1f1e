"""Messages in, one commit's worth of rows out: the pure middle of the pipeline."""

import contextlib
import gc
from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa

from ..errors import FoldError
from ..fold.batch import Batch, Lane, Message
from ..fold.rows import Made
from ..parts import Parts
from ..projection import Rows
from ..store.generation import Folded, Generation


class Folder:
    """Folds batch after batch for some generations, all at the same position.

    It runs ahead of the commits: states and lanes are those after the last batch folded here.
    """

    def __init__(self, generations: Sequence[Generation], lanes: dict[Lane, int]) -> None:
        self.generations = list(generations)
        self.lanes = lanes
        self._states = {one: one.state for one in generations}

    def fold_for(self, generations: Sequence[Generation]) -> None:
        """Go on for these generations, which all stand where the last commit of this folder ended."""
        self.generations = list(generations)
        self._states = {one: one.state for one in generations}

    def fold(self, messages: Sequence[Message]) -> Folded:
        """Decode and fold messages, at least one. A projection whose code fails is left out from here on."""
        with _no_collection():
            return self._fold(messages)

    def _fold(self, messages: Sequence[Message]) -> Folded:
        batch = Batch.read(messages, lanes=self.lanes)
        folded = Folded(batch.first, batch.last, [], list(self.generations))
        folded.events = len(batch)
        folded.bytes = sum(message.size for message in messages)
        made: Made = {}
        for one in folded.generations:
            if not one.projection.wants(batch.types) and not batch.unreadable:
                continue
            try:
                state, rows = one.projection.advance(self._states[one], batch)
                tables = _arrow(one, rows, made)
                encoded = None if state is None or isinstance(state, Parts) else msgspec.msgpack.encode(state)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a user's fold is foreign code: it must not stop the others
                folded.failed[one] = str(FoldError(one.projection.name, batch.first, batch.last, error))
                self.generations.remove(one)
                continue
            if state is not None:
                self._states[one] = folded.states[one] = state
                if encoded is not None:
                    folded.encoded[one] = encoded
            folded.rows.extend(tables)
        batch.release()
        return folded


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: a batch makes a million objects and no cycle, and scanning them doubles its cost."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _arrow(one: Generation, rows: Rows, made: Made) -> list[tuple[Generation, str, pa.Table]]:
    tables = []
    for table, columns in rows.items():
        types = one.projection.columns.get(table)
        if types is None:
            raise ValueError(f"the fold returned rows for table {table!r}, which is not declared")
        if len(columns):
            tables.append((one, table, columns.arrow(types, made)))
    return tables
