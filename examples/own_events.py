"""An event and a table of one's own: what a package would declare, in one file.

A running projector knows installed projections only, and so not the one of this file: stop it first.
"""

from collections.abc import Iterable
from typing import Any

import morphogen
from morphogen import Event, MorphogenError, Projection
from morphogen.consumers.projections import register


class Rollback(Event, type="training.rollback", version=1):
    """The job went back to a checkpoint."""

    from_step: int
    to_step: int
    reason: str


class Rollbacks(Projection, name="rollbacks", version=1, types=("training.rollback",)):
    """One row a rollback, and how many steps each run lost to them."""

    tables = {"rollbacks": "to_step BIGINT, reason VARCHAR"}  # noqa: RUF012
    views = {"steps_lost": "SELECT run, sum(step - to_step) AS steps FROM rollbacks GROUP BY run"}  # noqa: RUF012

    def rows(self, event: Any) -> Iterable[tuple[Any, ...]]:
        """Return the columns of one event; its run, attempt and step are there already."""
        yield event.body.to_step, event.body.reason


register(Rollbacks)  # a package names it under the entry points of group morphogen.projections instead

with morphogen.record("own-events") as run:
    spike = run.event(Rollback(from_step=1200, to_step=1000, reason="loss spike"), step=1200)
    run.line("rolled back", level="warning", cause=spike)
    run.event(Rollback(from_step=1500, to_step=1400, reason="NaN"), step=1500)

rollbacks = "SELECT step, to_step, reason FROM rollbacks WHERE run = 'own-events' ORDER BY seq, idx"
try:
    print(morphogen.query(rollbacks, wait=True))
    print(morphogen.query("SELECT * FROM steps_lost WHERE run = 'own-events'"))
except MorphogenError as error:
    advice = "if a projector runs, stop it first: it knows installed projections only"
    raise SystemExit(f"{error}; {advice}") from None
