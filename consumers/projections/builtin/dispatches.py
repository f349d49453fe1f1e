"""`dispatches`: one row a request: which way it was pursued, what fell back, what it cost and what it saved."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas.dispatch import DispatchCompared, DispatchDecided, DispatchFellBack, DispatchFinished

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int64

_TYPES = (DispatchDecided, DispatchFellBack, DispatchCompared, DispatchFinished)


class Dispatches(Projection, name="dispatches", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Decisions with all alternatives, falls from one mode to the next, comparisons on paper, and ends.

    A request is `served` or `failed`; one that was decided and never ended is `unfinished`: it runs, or was killed.
    """

    tables = {
        "_dispatch_decisions": "request VARCHAR, goal VARCHAR, signature VARCHAR, mode VARCHAR, method VARCHAR, reason VARCHAR, "
        "params VARIANT, matched VARCHAR, similarity DOUBLE, confidence DOUBLE, execution VARCHAR, tool VARCHAR, "
        "tool_version BIGINT, alternatives VARIANT, thresholds VARIANT, budget_microusd BIGINT, match_ns BIGINT, "
        "decided_by VARCHAR",
        "dispatch_falls": "request VARCHAR, mode VARCHAR, next_mode VARCHAR, reason VARCHAR, guard VARCHAR, "
        "refused BOOLEAN, done VARCHAR[], execution VARCHAR, duration_ns BIGINT, cost_microusd BIGINT",
        "dispatch_comparisons": "request VARCHAR, signature VARCHAR, matched VARCHAR, mode VARCHAR, method VARCHAR, "
        "agreed BOOLEAN, reason VARCHAR, similarity DOUBLE, execution VARCHAR",
        "_dispatch_ends": "request VARCHAR, signature VARCHAR, mode VARCHAR, ok BOOLEAN, execution VARCHAR, tool VARCHAR, "
        "tool_version BIGINT, error VARCHAR, duration_ns BIGINT, cost_microusd BIGINT, saved_microusd BIGINT, saved_ns BIGINT",
    }
    views = {
        "dispatches": """
            WITH decided AS (
                SELECT * FROM _dispatch_decisions QUALIFY row_number() OVER (PARTITION BY request ORDER BY seq, idx) = 1
            ), ended AS (
                SELECT * FROM _dispatch_ends
                QUALIFY row_number() OVER (PARTITION BY request ORDER BY seq DESC, idx DESC) = 1
            ), fell AS (
                SELECT request, count(*) AS falls, count(guard) AS guard_misses,
                       list({'mode': mode, 'next_mode': next_mode, 'reason': reason, 'guard': guard, 'refused': refused,
                             'done': done} ORDER BY seq, idx)
                           AS fell_back
                FROM dispatch_falls GROUP BY request
            )
            SELECT coalesce(d.request, e.request) AS request, d.goal, coalesce(d.signature, e.signature) AS signature,
                   CASE WHEN e.request IS NULL THEN 'unfinished' WHEN e.ok THEN 'served' ELSE 'failed' END AS status,
                   d.mode AS decided_mode, e.mode AS mode, d.method, d.reason, d.params, d.matched, d.similarity, d.confidence,
                   d.execution AS guide, e.execution, coalesce(e.tool, d.tool) AS tool,
                   coalesce(e.tool_version, d.tool_version) AS tool_version, coalesce(f.falls, 0) AS falls,
                   coalesce(f.guard_misses, 0) AS guard_misses, f.fell_back, e.error, e.duration_ns, d.match_ns,
                   e.cost_microusd, e.saved_microusd, e.saved_ns, d.budget_microusd, d.alternatives, d.thresholds, d.decided_by,
                   d.time AS decided, e.time AS finished, coalesce(d.run, e.run) AS run, coalesce(d.seq, e.seq) AS seq,
                   coalesce(d.idx, e.idx) AS idx
            FROM decided d FULL JOIN ended e ON d.request = e.request
            LEFT JOIN fell f ON f.request = coalesce(d.request, e.request)
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        match body:
            case DispatchDecided():
                yield "_dispatch_decisions", (
                    body.request, body.goal, body.signature, body.mode, body.method, body.reason, body.params, body.matched,
                    body.similarity, body.confidence, body.execution, body.tool, int64(body.tool_version), body.alternatives,
                    body.thresholds, int64(body.budget_microusd), int64(body.match_ns), body.by,
                )  # fmt: skip
            case DispatchFellBack():
                yield "dispatch_falls", (
                    body.request, body.mode, body.to, body.reason, body.guard, body.refused, list(body.done), body.execution,
                    int64(body.duration_ns), int64(body.cost_microusd),
                )  # fmt: skip
            case DispatchCompared():
                yield "dispatch_comparisons", (
                    body.request, body.signature, body.matched, body.mode, body.method, body.agreed, body.reason,
                    body.similarity, body.execution,
                )  # fmt: skip
            case DispatchFinished():
                yield "_dispatch_ends", (
                    body.request, body.signature, body.mode, body.ok, body.execution, body.tool, int64(body.tool_version),
                    body.error, int64(body.duration_ns), int64(body.cost_microusd), int64(body.saved_microusd),
                    int64(body.saved_ns),
                )  # fmt: skip
