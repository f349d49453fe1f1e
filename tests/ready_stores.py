"""New stores are copies of one that was made before: in a process of tests, `Store.open` finds an empty one ready.

To make the tables and the views of all projections takes DuckDB more than a second of a core, to copy them a tenth of
that. What is copied has been made by `Store.open` itself, for the same projections; processes that tests start make
theirs themselves, and so does a test that asks for `stores_from_nothing`.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphogen.consumers.projections import Projection, Store

FOLDER = "READY_STORES"
"""The environment variable that names a folder for what is copied, where several processes share it."""

_MODULE = "morphogen.consumers.projections.store.store"
_made: list[Any] = []  # `Store.open` as it is, once another stands in its place
_off: list[None] = []


def lay_ready() -> None:
    """Put a `Store.open` that copies in the place of the real one, as soon as somebody has imported it."""
    module = sys.modules.get(_MODULE)
    if module is None or _made:
        return
    store: type[Store] = module.Store
    real = store.open

    def open_ready(path: Path | str, projections: "Sequence[Projection] | None" = None, **options: Any) -> "Store":
        if projections is None:
            from morphogen.consumers.projections import discover

            projections = discover()
        if not _off:
            _place(Path(path), projections, options["epoch"])
        return real(path, projections, **options)

    _made.append(real)
    store.open = staticmethod(open_ready)  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def from_nothing() -> Iterator[None]:
    """Let stores be made as users make them."""
    _off.append(None)
    yield
    _off.pop()


def _place(path: Path, projections: "Sequence[Projection]", epoch: str) -> None:
    """Lay an empty store where there is no file yet; leave it to `Store.open` where that cannot be done."""
    import duckdb

    if path.exists() or path.with_name(f"{path.name}.wal").exists():
        return
    copy = _folder() / f"{os.getpid()}-{epoch}-{path.name}"
    with contextlib.suppress(Exception):  # then it fails as it would have failed, or is made
        shutil.copyfile(_empty(projections), copy)
        with duckdb.connect(str(copy)) as con:
            con.execute("UPDATE morphogen.store SET epoch = ?", [epoch])
            con.execute("UPDATE morphogen.positions SET epoch = ?", [epoch])
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(copy, path)  # never over a file that somebody has made meanwhile
    copy.unlink(missing_ok=True)


def _empty(projections: "Sequence[Projection]") -> Path:
    """Return an empty store of these projections, made where there is none."""
    parts = [(one.name, one.signature, sorted(one.columns.items()), sorted(one.views.items()), sorted(one.keys.items()))
             for one in projections]  # fmt: skip
    made = _folder() / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.duckdb"
    if not made.exists():
        new = made.with_name(f"{os.getpid()}-new-{made.name}")
        _made[0](new, projections, epoch="none").close()
        os.replace(new, made)
    return made


def _folder() -> Path:
    shared = os.environ.get(FOLDER)
    return Path(shared) if shared else Path(_own().name)


@cache
def _own() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="morphogen-ready-stores-")
