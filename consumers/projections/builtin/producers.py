"""`producers`: the proof that nothing is lost, one row a lane (a writer's records of one family)."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import ProducerClosed

from ..fold.batch import Entry
from ..projection import Projection


class Producers(Projection, name="producers", version=1, types=("producer.dropped", "producer.closed")):
    """What producers say of their books, and the books of each lane.

    produced    the highest counter that the log knows of: in a frame, in a notice of dropped records, or in the
                producer's own closing count
    acked       records that the log holds (those it may hold twice, `doubled`, counted once)
    projected   rows of `events` made of them; equal to `acked` once the projector has caught up
    dropped     records that the producer gave up, loudly
    lost        produced - dropped - projected: 0 in a healthy run
    """

    tables = {
        "_drops": "writer VARCHAR, family VARCHAR, first BIGINT, last BIGINT, count BIGINT, bytes BIGINT, "
        "reason VARCHAR",
        "_closings": "writer VARCHAR, family VARCHAR, produced BIGINT, dropped BIGINT",
    }
    views = {
        "producers": """
            WITH logged AS (
                SELECT writer, family, any_value(run) AS run, max(attempt) AS attempt, any_value(rank) AS rank,
                       max(last) AS last, sum(count) - sum(doubled) AS acked, sum(doubled) AS doubled,
                       sum(bytes) AS bytes, max(max_time) AS last_time
                FROM frames GROUP BY writer, family
            ), gone AS (
                SELECT writer, family, any_value(run) AS run, max(attempt) AS attempt, any_value(rank) AS rank,
                       max(last) AS last, sum(count) AS dropped, max(time) AS last_time
                FROM _drops GROUP BY writer, family
            ), closed AS (
                SELECT writer, family, any_value(run) AS run, max(attempt) AS attempt, any_value(rank) AS rank,
                       max(produced) AS produced, max(time) AS last_time
                FROM _closings GROUP BY writer, family
            ), lanes AS (
                SELECT writer, family FROM logged UNION SELECT writer, family FROM gone
                UNION SELECT writer, family FROM closed WHERE produced > 0
            ), folded AS (
                SELECT lane, count(*) AS projected
                FROM (SELECT lane FROM _event_rows UNION ALL SELECT lane FROM _held_rows) WHERE lane IS NOT NULL GROUP BY lane
            ), books AS (
                SELECT coalesce(logged.run, gone.run, closed.run) AS run,
                       coalesce(logged.attempt, gone.attempt, closed.attempt) AS attempt,
                       coalesce(logged.rank, gone.rank, closed.rank) AS rank, writer, family,
                       greatest(coalesce(logged.last, 0), coalesce(gone.last, 0),
                                coalesce(closed.produced, 0))::BIGINT AS produced,
                       coalesce(logged.acked, 0)::BIGINT AS acked, coalesce(folded.projected, 0)::BIGINT AS projected,
                       coalesce(gone.dropped, 0)::BIGINT AS dropped, coalesce(logged.doubled, 0)::BIGINT AS doubled,
                       coalesce(logged.bytes, 0)::BIGINT AS bytes,
                       coalesce(logged.last_time, gone.last_time, closed.last_time) AS last_time,
                       closed.writer IS NOT NULL AS closed
                FROM lanes LEFT JOIN logged USING (writer, family) LEFT JOIN gone USING (writer, family)
                LEFT JOIN closed USING (writer, family) LEFT JOIN folded ON folded.lane = writer || '.' || family
            )
            SELECT run, attempt, rank, writer, family, produced, acked, projected, dropped,
                   produced - dropped - projected AS lost, doubled, bytes, last_time, closed
            FROM books
        """
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield a row for a notice of dropped records, and one for each family of a closing count."""
        body, writer = event.body, event.id.split(".", 1)[0]
        if isinstance(body, ProducerClosed):
            for family in sorted({*body.produced, *body.dropped}):
                yield "_closings", (writer, family, body.produced.get(family, 0), body.dropped.get(family, 0))
        else:
            yield "_drops", (writer, body.lane, body.first, body.last, body.count, body.bytes, body.reason)
