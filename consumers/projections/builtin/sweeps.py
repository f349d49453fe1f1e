"""`trials`: one row a configuration that was measured. `sweeps` and `best_trials`: where each sweep stands."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import SweepBest, SweepFinished, SweepStarted

from ..fold.batch import Entry
from ..projection import Projection


class Sweeps(
    Projection,
    name="sweeps",
    version=1,
    types=("sweep.started", "sweep.trial_finished", "sweep.best", "sweep.finished"),
):
    """Sweeps as begun and ended, each trial, and each change of the best."""

    tables = {
        "trials": "sweep VARCHAR, number INTEGER, key VARCHAR, config VARIANT, state VARCHAR, value DOUBLE, "
        'lowest DOUBLE, highest DOUBLE, repeats INTEGER, "values" DOUBLE[], paired DOUBLE[], reason VARCHAR, '
        "baseline BOOLEAN, cost DOUBLE, seconds DOUBLE, measured DOUBLE, origin VARCHAR, host VARCHAR",
        "_sweep_starts": "sweep VARCHAR, parameters VARIANT, sampler VARCHAR, metric VARCHAR, objective VARCHAR, "
        "seed BIGINT, budget BIGINT, repeats INTEGER, warmup INTEGER, workers INTEGER, size DOUBLE, baseline VARIANT",
        "_sweep_bests": "sweep VARCHAR, number INTEGER, key VARCHAR, config VARIANT, value DOUBLE, low DOUBLE, "
        "high DOUBLE, level DOUBLE, previous INTEGER, speedup DOUBLE",
        "_sweep_ends": "sweep VARCHAR, reason VARCHAR, excluded BIGINT, best INTEGER, speedup DOUBLE, low DOUBLE, "
        "high DOUBLE",
    }
    views = {
        "best_trials": """
            SELECT b.run, b.sweep, s.metric, s.objective, b.number, b.value, b.low, b.high, b.level,
                   coalesce(e.speedup, b.speedup) AS speedup, b.config, b.key, b.time, b.seq, b.idx
            FROM (
                SELECT * FROM _sweep_bests
                QUALIFY row_number() OVER (PARTITION BY run, sweep ORDER BY seq DESC, idx DESC) = 1
            ) b
            LEFT JOIN (
                SELECT run, sweep, first(metric ORDER BY seq, idx) AS metric,
                       first(objective ORDER BY seq, idx) AS objective
                FROM _sweep_starts GROUP BY run, sweep
            ) s USING (run, sweep)
            LEFT JOIN (
                SELECT run, sweep, last(speedup ORDER BY seq, idx) AS speedup FROM _sweep_ends GROUP BY run, sweep
            ) e USING (run, sweep)
        """,
        "sweeps": """
            WITH counted AS (
                SELECT run, sweep, count(*) AS trials, count(*) FILTER (state = 'measured') AS measured,
                       count(*) FILTER (state = 'failed') AS failed, count(*) FILTER (state = 'rejected') AS rejected,
                       count(*) FILTER (state = 'pruned') AS pruned, sum(seconds) AS seconds
                FROM trials GROUP BY run, sweep
            ), ended AS (
                SELECT run, sweep, last(reason ORDER BY seq, idx) AS reason, last(excluded ORDER BY seq, idx) AS excluded
                FROM _sweep_ends GROUP BY run, sweep
            )
            SELECT s.run, s.sweep, coalesce(ended.reason, 'running') AS status, s.metric, s.objective, s.sampler, s.seed,
                   s.budget, s.size, coalesce(trials, 0) AS trials, coalesce(measured, 0) AS measured,
                   coalesce(failed, 0) AS failed, coalesce(rejected, 0) AS rejected, coalesce(pruned, 0) AS pruned,
                   ended.excluded, seconds, s.parameters, s.baseline, s.time AS started
            FROM _sweep_starts s LEFT JOIN counted USING (run, sweep) LEFT JOIN ended USING (run, sweep)
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        if isinstance(body, SweepStarted):
            yield "_sweep_starts", (
                body.sweep, body.parameters, body.sampler, body.metric, body.objective, _int64(body.seed),
                _int64(body.budget), _int32(body.repeats), _int32(body.warmup), _int32(body.workers),
                None if body.size is None else float(min(body.size, 10**300)), body.baseline,
            )  # fmt: skip
        elif isinstance(body, SweepBest):
            yield "_sweep_bests", (
                body.sweep, _int32(body.number), body.key, body.config, body.value, body.low, body.high, body.level,
                _int32(body.previous), body.speedup,
            )  # fmt: skip
        elif isinstance(body, SweepFinished):
            yield "_sweep_ends", (
                body.sweep, body.reason, _int64(body.excluded), _int32(body.best), body.speedup, body.low, body.high,
            )  # fmt: skip
        else:
            yield "trials", (
                body.sweep, _int32(body.number), body.key, body.config, body.state, body.value,
                min(body.values, default=None), max(body.values, default=None), len(body.values), body.values,
                body.paired, body.reason, body.baseline, body.cost, body.seconds, body.measured, body.origin, body.host,
            )  # fmt: skip


def _int32(value: int | None) -> int | None:
    return None if value is None else min(max(value, -(2**31)), 2**31 - 1)


def _int64(value: int | None) -> int | None:
    return None if value is None else min(max(value, -(2**63)), 2**63 - 1)
