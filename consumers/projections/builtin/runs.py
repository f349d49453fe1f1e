"""`runs`: one row a run: how its latest attempt stands, and with what it was started."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import RunFailed, RunFinished

from ..fold.batch import Entry
from ..projection import Projection


class Runs(Projection, name="runs", version=1, types=("run.started", "run.finished", "run.failed")):
    """Beginnings and ends of attempts, and the state of each run over them."""

    tables = {
        "_run_starts": "config VARIANT, host VARCHAR, hosts VARIANT, pid BIGINT, git_commit VARCHAR, "
        "git_dirty BOOLEAN, world_size INTEGER",
        "_run_ends": "status VARCHAR, error VARCHAR, message VARCHAR, duration DOUBLE",
    }
    views = {
        "attempts": """
            WITH seen AS (
                SELECT run, attempt, min(min_time) AS first_seen, max(max_time) AS last_seen,
                       max(max_step) AS last_step, count(DISTINCT rank) AS ranks
                FROM frames WHERE run <> '' AND attempt > 0 GROUP BY run, attempt
            ), starts AS (
                SELECT run, attempt, first(time ORDER BY rank, seq, idx) AS started,
                       first(config ORDER BY rank, seq, idx) AS config, first(host ORDER BY rank, seq, idx) AS host,
                       first(git_commit ORDER BY rank, seq, idx) AS git_commit,
                       first(git_dirty ORDER BY rank, seq, idx) AS git_dirty, max(world_size) AS world_size
                FROM _run_starts GROUP BY run, attempt
            ), ends AS (
                SELECT run, attempt, first(status ORDER BY rank, seq DESC, idx DESC) AS status,
                       first(time ORDER BY rank, seq DESC, idx DESC) AS ended,
                       first(error ORDER BY (error IS NULL), rank, seq DESC, idx DESC) AS error,
                       first(message ORDER BY (error IS NULL), rank, seq DESC, idx DESC) AS message,
                       first(duration ORDER BY rank, seq DESC, idx DESC) AS duration
                FROM _run_ends GROUP BY run, attempt
            )
            SELECT run, attempt, coalesce(ends.status, 'running') AS status,
                   coalesce(starts.started, seen.first_seen) AS started, ends.ended, seen.last_seen, seen.last_step,
                   starts.config, starts.git_commit, starts.git_dirty, starts.host,
                   greatest(seen.ranks, coalesce(starts.world_size, 0)) AS ranks, ends.error, ends.message,
                   ends.duration
            FROM seen LEFT JOIN starts USING (run, attempt) LEFT JOIN ends USING (run, attempt)
        """,
        "runs": """
            WITH latest AS (
                SELECT *, max(last_seen) OVER (PARTITION BY run) AS seen_at, count(*) OVER (PARTITION BY run) AS many,
                       min(started) OVER (PARTITION BY run) AS began
                FROM attempts QUALIFY row_number() OVER (PARTITION BY run ORDER BY attempt DESC) = 1
            )
            SELECT run, status, attempt, many AS attempts, began AS started, ended, seen_at AS last_seen, last_step,
                   config, git_commit, git_dirty, host, ranks, error, message
            FROM latest
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        if isinstance(body, RunFinished):
            yield "_run_ends", ("finished", None, None, body.duration)
        elif isinstance(body, RunFailed):
            yield "_run_ends", ("failed", body.error, body.message, body.duration)
        else:
            pid = body.pid if body.pid is None or abs(body.pid) < 2**63 else None
            world = body.world_size if body.world_size is None or abs(body.world_size) < 2**31 else None
            yield "_run_starts", (body.config, body.host, body.hosts, pid, body.git_commit, body.git_dirty, world)
