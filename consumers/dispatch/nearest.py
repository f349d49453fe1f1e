"""Which families are like a goal: their vectors in an in-memory DuckDB, searched by cosine in SQL."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Near:
    """A family and how alike it is: the cosine, from -1 to 1."""

    signature: str
    similarity: float


class Nearest:
    """The vectors of families, by model. Fed by the fold; opens DuckDB when it is first searched. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str, npt.NDArray[np.float32]]] = []
        self._known: set[tuple[str, str]] = set()
        self._tables: dict[int, str] = {}
        self._database: Any = None

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the family `key[0]` has a vector of the model `key[1]`."""
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, signature: str, model: str, vector: Any) -> None:
        """Take a family's vector; the first one of a model counts, and one without length or with holes is left out."""
        array = np.asarray(vector, np.float32).reshape(-1)
        if array.size == 0 or not np.isfinite(array).all() or not array.any():
            return
        with self._lock:
            if (signature, model) not in self._known:
                self._known.add((signature, model))
                self._waiting.append((signature, model, array))

    def skip(self, signature: str, model: str) -> None:
        """Remember that a family's template has no vector, so that nobody asks again."""
        with self._lock:
            self._known.add((signature, model))

    def search(self, model: str, vector: Any, *, limit: int, least: float) -> list[Near]:
        """Return the families of `model` that are most alike, best first, at most `limit`, none below `least`.

        Equal similarities are ordered by signature, so the answer does not depend on the order of arrival.
        """
        array = np.asarray(vector, np.float32).reshape(-1)
        if array.size == 0 or not np.isfinite(array).all() or not array.any():
            return []
        with self._lock:
            self._take_in()
            table = self._tables.get(array.size)
            if table is None:
                return []
            rows = self._database.execute(
                f"SELECT signature, array_cosine_similarity(vector, ?::FLOAT[{array.size}]) AS likeness FROM {table} "
                "WHERE model = ? AND likeness >= ? ORDER BY likeness DESC, signature LIMIT ?",
                [array.tolist(), model, least, limit],
            ).fetchall()
        return [Near(str(signature), min(1.0, max(-1.0, float(likeness)))) for signature, likeness in rows]

    def close(self) -> None:
        """Give the database's memory back; a later search begins with nothing."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database, self._tables, self._waiting, self._known = None, {}, [], set()

    def _take_in(self) -> None:
        if not self._waiting:
            return
        if self._database is None:
            import duckdb

            self._database = duckdb.connect(":memory:", config={"threads": 1})
        for size in sorted({array.size for _, _, array in self._waiting}):
            if size not in self._tables:
                self._tables[size] = f"vectors_{size}"
                self._database.execute(
                    f"CREATE TABLE vectors_{size} (signature VARCHAR, model VARCHAR, vector FLOAT[{size}])"
                )
            rows = [(one, model, array.tolist()) for one, model, array in self._waiting if array.size == size]
            columns = [list(column) for column in zip(*rows, strict=True)]
            self._database.execute(
                f"INSERT INTO vectors_{size} SELECT unnest(?), unnest(?), unnest(?)::FLOAT[{size}]", columns
            )
        self._waiting = []
