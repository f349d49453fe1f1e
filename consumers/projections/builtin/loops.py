"""`loops` and `loop_steps`: what durable loops did, one row a run and one row a step."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import (
    LoopAnswered,
    LoopFinished,
    LoopGrounded,
    LoopHandled,
    LoopResumed,
    LoopRuleFired,
    LoopStarted,
    LoopSuspended,
    LoopVerdict,
    LoopViolated,
    StepFinished,
    StepStarted,
)

from ..fold.batch import Entry
from ..projection import Projection

_TYPES = (
    LoopStarted, LoopResumed, LoopSuspended, LoopAnswered, LoopFinished, LoopVerdict, LoopHandled, StepStarted, StepFinished,
    LoopGrounded, LoopRuleFired, LoopViolated,
)  # fmt: skip


class Loops(Projection, name="loops", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Runs of loops and their steps, and how each stands.

    A loop is running, suspended (it waits for an answer), answered (it can be resumed), done or failed; one whose process was
    killed stays running until it is resumed. A step is begun, done, failed or planned.
    """

    tables = {
        "_loop_starts": "loop VARCHAR, kind VARCHAR, program VARCHAR, sha256 VARCHAR, parameters VARIANT, "
        "workspace VARCHAR, live BOOLEAN, backend VARCHAR, host VARCHAR",
        "_loop_states": "status VARCHAR, reason VARCHAR, path VARCHAR, prompt VARCHAR, sha256 VARCHAR, duration DOUBLE",
        "_loop_verdicts": "success BOOLEAN, conditions VARIANT, checks VARIANT, metrics VARIANT",
        "_loop_handlings": "source_seq BIGINT, source_idx INTEGER, event_id VARCHAR, handler VARCHAR, ok BOOLEAN, "
        "error VARCHAR, duration DOUBLE",
        "_loop_findings": "kind VARCHAR, name VARCHAR, value BOOLEAN, path VARCHAR, evidence VARIANT",
        "_step_starts": "path VARCHAR, name VARCHAR, number BIGINT, action VARCHAR, arguments VARIANT, key VARCHAR, "
        "effect VARCHAR, policy VARCHAR, try BIGINT",
        "_step_ends": "path VARCHAR, ok BOOLEAN, output VARIANT, planned BOOLEAN, error VARCHAR, duration DOUBLE, "
        "resources VARIANT, resolved VARCHAR",
    }
    views = {
        "loops": """
            WITH begun AS (
                SELECT * FROM _loop_starts QUALIFY row_number() OVER (PARTITION BY run ORDER BY seq, idx) = 1
            ), stands AS (
                SELECT *, count(*) FILTER (status = 'running') OVER (PARTITION BY run) AS processes
                FROM _loop_states QUALIFY row_number() OVER (PARTITION BY run ORDER BY seq DESC, idx DESC) = 1
            ), judged AS (
                SELECT * FROM _loop_verdicts QUALIFY row_number() OVER (PARTITION BY run ORDER BY seq DESC, idx DESC) = 1
            ), counted AS (
                SELECT run, count(DISTINCT path) FILTER (action <> '') AS steps FROM _step_starts GROUP BY run
            ), handled AS (
                SELECT run, count(*) FILTER (handler <> '') AS handled FROM _loop_handlings GROUP BY run
            )
            SELECT b.run, b.loop, b.kind, s.status, s.reason, j.success, coalesce(c.steps, 0)::BIGINT AS steps,
                   s.processes::BIGINT AS processes, b.time AS started, s.time AS changed,
                   CASE WHEN s.status IN ('done', 'failed') THEN s.duration END AS duration,
                   CASE WHEN s.status = 'suspended' THEN s.prompt END AS prompt,
                   CASE WHEN s.status = 'suspended' THEN s.path END AS waits_at, j.metrics, j.checks, j.conditions,
                   coalesce(h.handled, 0)::BIGINT AS handled, b.live, b.backend, b.program, b.sha256, b.parameters,
                   b.workspace, b.host
            FROM begun b JOIN stands s USING (run) LEFT JOIN judged j USING (run) LEFT JOIN counted c USING (run)
            LEFT JOIN handled h USING (run)
        """,
        "loop_steps": """
            WITH first AS (
                SELECT run, path, min(time) AS started, max(try) AS tries FROM _step_starts GROUP BY run, path
            ), latest AS (
                SELECT * FROM _step_starts QUALIFY row_number() OVER (PARTITION BY run, path ORDER BY seq DESC, idx DESC) = 1
            ), ended AS (
                SELECT * FROM _step_ends QUALIFY row_number() OVER (PARTITION BY run, path ORDER BY seq DESC, idx DESC) = 1
            )
            SELECT l.run, l.number, l.path, l.name, l.action,
                   CASE WHEN e.path IS NULL OR (e.seq, e.idx) < (l.seq, l.idx) THEN 'begun'
                        WHEN e.planned THEN 'planned' WHEN e.ok THEN 'done' ELSE 'failed' END AS status,
                   l.arguments, e.output, e.error, f.tries, f.started, e.time AS ended, e.duration, e.resources,
                   l.effect, l.policy, e.resolved, l.key, l.seq, l.idx
            FROM latest l JOIN first f USING (run, path) LEFT JOIN ended e USING (run, path)
        """,
        "loop_findings": """
            SELECT run, kind, name, value, path, evidence, time, step, seq, idx FROM _loop_findings
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield the rows of one event."""
        body = event.body
        match body:
            case LoopStarted():
                yield "_loop_starts", (
                    body.loop, body.kind, body.program, body.sha256, body.parameters, body.workspace, body.live, body.backend,
                    body.host,
                )  # fmt: skip
                yield "_loop_states", ("running", "", None, None, body.sha256, None)
            case LoopResumed():
                yield "_loop_states", ("running", "", None, None, body.sha256, None)
            case LoopSuspended():
                yield "_loop_states", ("suspended", body.reason, body.path, body.prompt, body.sha256, None)
            case LoopAnswered():
                yield "_loop_states", ("answered", "", body.path, None, body.sha256, None)
            case LoopFinished():
                yield "_loop_states", (body.status, body.reason, None, None, None, body.duration_ns / 1e9)
            case LoopVerdict():
                yield "_loop_verdicts", (body.success, body.conditions, body.checks, body.metrics)
            case LoopHandled():
                yield "_loop_handlings", (
                    _int64(body.seq), max(min(body.idx, 2**31 - 1), -1), body.event_id, body.handler, body.ok, body.error,
                    body.duration_ns / 1e9,
                )  # fmt: skip
            case StepStarted():
                yield "_step_starts", (
                    body.path, body.step, _int64(body.number), body.action, body.arguments, body.key, body.effect, body.policy,
                    _int64(body.attempt),
                )  # fmt: skip
            case StepFinished():
                yield "_step_ends", (
                    body.path, body.ok, body.output, body.planned, body.error, body.duration_ns / 1e9, body.resources,
                    body.resolved,
                )  # fmt: skip
            case LoopGrounded():
                yield "_loop_findings", ("fact", body.fact, body.value, body.path, body.evidence)
            case LoopRuleFired():
                yield "_loop_findings", ("rule", body.rule, True, body.path, body.evidence)
            case LoopViolated():
                yield "_loop_findings", ("invariant", body.invariant, False, body.path, body.evidence)


def _int64(value: int) -> int:
    return min(max(value, -(2**63)), 2**63 - 1)
