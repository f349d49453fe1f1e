"""`crystals`, `crystal_versions`, `crystal_attempts`, `crystallization_candidates`: tools, and what may become one.

A version's state is what its newest move that counts has made of it; see `tool_states` for what counts.
"""

from collections.abc import Iterable
from copy import copy
from typing import Any

from morphogen.schemas.crystals import (
    CrystalAsked,
    CrystalChecked,
    CrystalDrafted,
    CrystalFailed,
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalRequested,
    CrystalShadowed,
)
from morphogen.schemas.llm import LlmQueried

from ..fold.batch import Batch, Entry
from ..projection import Projection, Rows
from .bounds import int64
from .tool_states import ToolStates
from .wilson import wilson_sql

HORIZON_DAYS = 30
"""Days over which the net value of a candidate is reckoned."""
_ASKED = "crystal/"  # what the step of a model's reply begins with, where it was asked for a tool

_TYPES = (
    CrystalRequested, CrystalAsked, LlmQueried, CrystalDrafted, CrystalChecked, CrystalFailed, CrystalRegistered, CrystalShadowed, CrystalMoved,
    CrystalInvoked,
)  # fmt: skip


class Crystals(Projection, name="crystals", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Attempts to make a tool, stage by stage; the versions that came of them; each call, shadow run and change of state.

    `counted` is false in rows of events that change nothing: of a version that nobody registered, or an illegal move.
    Costs are micro-dollars, durations nanoseconds; NULL is not known.
    """

    tables = {
        "_crystal_requests": "attempt_id VARCHAR, signature VARCHAR, tool VARCHAR, requested_by VARCHAR, maker VARCHAR, "
        "made_from VARCHAR[], held_out VARCHAR[], budget_microusd BIGINT",
        "_crystal_drafts": "attempt_id VARCHAR, source VARCHAR, source_sha256 VARCHAR, program VARIANT, entry VARCHAR, "
        "params VARIANT, returns VARCHAR, capabilities VARCHAR[], maker VARCHAR, doubts VARCHAR[], model VARCHAR, cost_microusd BIGINT, "
        "duration_ns BIGINT",
        "_crystal_questions": "attempt_id VARCHAR, number BIGINT, prompt_sha256 VARCHAR, asked_by VARCHAR, "
        "reserved_microusd BIGINT",
        "_crystal_replies": "attempt_id VARCHAR, number BIGINT, model VARCHAR, replied BOOLEAN, error VARCHAR, "
        "cost_microusd BIGINT",
        "_crystal_checks": "attempt_id VARCHAR, stage VARCHAR, ok BOOLEAN, reason VARCHAR, evidence VARIANT, tried BIGINT, "
        "matched BIGINT, duration_ns BIGINT, layers VARCHAR[]",
        "_crystal_failures": "attempt_id VARCHAR, signature VARCHAR, stage VARCHAR, reason VARCHAR",
        "_crystal_registrations": "tool VARCHAR, number BIGINT, signature VARCHAR, attempt_id VARCHAR, source VARCHAR, "
        "source_sha256 VARCHAR, entry VARCHAR, params VARIANT, returns VARCHAR, guards VARIANT, capabilities VARCHAR[], "
        "effects VARCHAR[], limits VARIANT, parent BIGINT, signed VARCHAR, key VARCHAR, provenance VARIANT, counted BOOLEAN",
        "crystal_moves": "tool VARCHAR, number BIGINT, from_state VARCHAR, to_state VARCHAR, reason VARCHAR, trials BIGINT, "
        "successes BIGINT, bound DOUBLE, counted BOOLEAN",
        "crystal_calls": "tool VARCHAR, number BIGINT, request VARCHAR, ok BOOLEAN, guard VARCHAR, error VARCHAR, "
        "duration_ns BIGINT, cpu_ns BIGINT, rss_bytes BIGINT, layers VARCHAR[], counted BOOLEAN",
        "crystal_shadows": "tool VARCHAR, number BIGINT, request VARCHAR, agreed BOOLEAN, reason VARCHAR, duration_ns BIGINT, "
        "served_ns BIGINT, counted BOOLEAN",
    }
    views = {
        "crystal_checks": """
            SELECT attempt_id AS attempt, stage, ok, reason, evidence, tried, matched, duration_ns, layers, time, run, seq, idx
            FROM _crystal_checks QUALIFY row_number() OVER (PARTITION BY attempt_id, stage ORDER BY seq DESC, idx DESC) = 1
        """,
        "crystal_questions": """
            WITH asked AS (
                SELECT attempt_id, number, count(*) AS tries, last(asked_by ORDER BY seq, idx) AS asked_by,
                       last({'most': reserved_microusd} ORDER BY seq, idx) AS reserved, min(time) AS asked
                FROM _crystal_questions GROUP BY attempt_id, number
            ), answered AS (
                SELECT attempt_id, number, first({'model': model, 'cost': cost_microusd} ORDER BY seq, idx) AS reply
                FROM _crystal_replies WHERE replied GROUP BY attempt_id, number
            ), refused AS (
                SELECT attempt_id, number, count(*) FILTER (cost_microusd = 0) AS free, last(error ORDER BY seq, idx) AS error
                FROM _crystal_replies WHERE NOT replied GROUP BY attempt_id, number
            ), settled AS (
                SELECT coalesce(q.attempt_id, a.attempt_id) AS attempt, coalesce(q.number, a.number) AS number,
                       CASE WHEN a.reply IS NOT NULL THEN 'answered' WHEN q.tries > coalesce(r.free, 0) THEN 'open'
                            ELSE 'unanswered' END AS status,
                       a.reply, q.reserved, q.asked_by, q.asked, r.error
                FROM asked q FULL JOIN answered a ON q.attempt_id = a.attempt_id AND q.number = a.number
                LEFT JOIN refused r ON r.attempt_id = q.attempt_id AND r.number = q.number
            )
            SELECT attempt, number, status, asked_by, reply.model AS model,
                   CASE WHEN reply.cost IS NOT NULL THEN reply.cost WHEN reserved IS NULL OR status = 'unanswered' THEN 0
                        ELSE reserved.most END AS cost_microusd,
                   reserved.most AS reserved_microusd, error, asked
            FROM settled
        """,
        "crystal_attempts": """
            WITH requested AS (
                SELECT * FROM _crystal_requests QUALIFY row_number() OVER (PARTITION BY attempt_id ORDER BY seq, idx) = 1
            ), drafted AS (
                SELECT * FROM _crystal_drafts QUALIFY row_number() OVER (PARTITION BY attempt_id ORDER BY seq, idx) = 1
            ), failed AS (
                SELECT * FROM _crystal_failures QUALIFY row_number() OVER (PARTITION BY attempt_id ORDER BY seq, idx) = 1
            ), made AS (
                SELECT * FROM _crystal_registrations WHERE counted
                QUALIFY row_number() OVER (PARTITION BY attempt_id ORDER BY seq DESC, idx DESC) = 1
            ), checked AS (
                SELECT attempt AS attempt_id, count(*) AS checks, count(*) FILTER (ok) AS passed, try_cast(sum(duration_ns) AS BIGINT) AS checks_ns,
                       list({'stage': stage, 'ok': ok, 'reason': reason, 'tried': tried, 'matched': matched,
                             'duration_ns': duration_ns} ORDER BY seq, idx) AS stages
                FROM crystal_checks GROUP BY attempt
            ), spent AS (
                SELECT attempt AS attempt_id, count(*) AS questions,
                       CASE WHEN count(cost_microusd) = count(*) THEN try_cast(sum(cost_microusd) AS BIGINT) END AS microusd
                FROM crystal_questions GROUP BY attempt
            ), known AS (
                SELECT attempt_id, min((seq, idx)) AS place, min(time) AS began, max(time) AS changed FROM (
                    SELECT attempt_id, seq, idx, time FROM _crystal_requests
                    UNION ALL SELECT attempt_id, seq, idx, time FROM _crystal_drafts
                    UNION ALL SELECT attempt_id, seq, idx, time FROM _crystal_checks
                    UNION ALL SELECT attempt_id, seq, idx, time FROM _crystal_failures
                    UNION ALL SELECT attempt_id, seq, idx, time FROM _crystal_registrations WHERE counted
                ) GROUP BY attempt_id
            )
            SELECT k.attempt_id AS attempt, coalesce(r.signature, m.signature, f.signature) AS signature, coalesce(r.tool, m.tool) AS tool,
                   m.number, CASE WHEN m.attempt_id IS NOT NULL THEN 'registered' WHEN f.attempt_id IS NOT NULL THEN 'failed'
                        WHEN d.attempt_id IS NOT NULL THEN 'drafted' ELSE 'requested' END AS status,
                   f.stage AS failed_stage, f.reason, r.requested_by, coalesce(d.maker, r.maker) AS maker, d.model,
                   CASE WHEN s.questions > 0 THEN s.microusd WHEN coalesce(d.maker, r.maker) = 'synthesis'
                        THEN coalesce(d.cost_microusd, 0) ELSE d.cost_microusd END AS cost_microusd,
                   coalesce(s.questions, 0) AS questions,
                   d.duration_ns AS draft_ns, coalesce(c.checks, 0) AS checks, coalesce(c.passed, 0) AS passed, c.checks_ns,
                   c.stages, r.made_from, r.held_out, r.budget_microusd, d.doubts, d.source, d.source_sha256, d.program, d.params,
                   d.returns, d.capabilities, k.began, k.changed, k.place.seq AS seq, k.place.idx AS idx
            FROM (SELECT * REPLACE ({'seq': place[1], 'idx': place[2]} AS place) FROM known) k
            LEFT JOIN requested r USING (attempt_id) LEFT JOIN drafted d USING (attempt_id) LEFT JOIN failed f USING (attempt_id)
            LEFT JOIN made m USING (attempt_id) LEFT JOIN checked c USING (attempt_id)
            LEFT JOIN spent s USING (attempt_id)
        """,
        "crystal_versions": f"""
            WITH moved AS (
                SELECT * FROM crystal_moves WHERE counted
                QUALIFY row_number() OVER (PARTITION BY tool, number ORDER BY seq DESC, idx DESC) = 1
            ), called AS (
                SELECT tool, number, count(*) FILTER (guard IS NULL) AS calls, count(*) FILTER (guard IS NULL AND ok) AS successes,
                       count(guard) AS guard_misses, try_cast(sum(duration_ns) FILTER (guard IS NULL) AS BIGINT) AS duration_ns,
                       median(duration_ns) FILTER (guard IS NULL AND ok) AS median_ns,
                       try_cast(sum(cpu_ns) FILTER (guard IS NULL) AS BIGINT) AS cpu_ns, max(rss_bytes) AS rss_bytes, max(time) AS last_called
                FROM crystal_calls WHERE counted GROUP BY tool, number
            ), shadowed AS (
                SELECT tool, number, count(*) AS shadows, count(*) FILTER (agreed) AS agreed
                FROM crystal_shadows WHERE counted GROUP BY tool, number
            )
            SELECT r.tool, r.number, r.signature, coalesce(m.to_state, 'shadow') AS state, m.reason, coalesce(c.calls, 0) AS calls,
                   coalesce(c.successes, 0) AS successes,
                   {wilson_sql("coalesce(c.successes, 0)", "coalesce(c.calls, 0)")} AS wilson_lower,
                   coalesce(c.guard_misses, 0) AS guard_misses, coalesce(s.shadows, 0) AS shadows,
                   coalesce(s.agreed, 0) AS agreed,
                   {wilson_sql("coalesce(s.agreed, 0)", "coalesce(s.shadows, 0)")} AS shadow_lower, c.duration_ns, c.median_ns,
                   c.cpu_ns, c.rss_bytes, r.attempt_id AS attempt, r.source, r.source_sha256, r.entry, r.params, r.returns, r.guards,
                   r.capabilities, r.effects, r.limits, r.parent, r.signed, r.key, r.provenance, r.time AS registered,
                   m.time AS moved, c.last_called, r.run, r.seq, r.idx
            FROM (SELECT * FROM _crystal_registrations WHERE counted) r LEFT JOIN moved m USING (tool, number)
            LEFT JOIN called c USING (tool, number) LEFT JOIN shadowed s USING (tool, number)
        """,
        "crystals": """
            WITH counted AS (
                SELECT tool, any_value(signature) AS signature, count(*) AS versions, max(number) AS newest,
                       max(number) FILTER (state = 'active') AS active_version,
                       max(number) FILTER (state = 'shadow') AS shadow_version,
                       coalesce(max(state) FILTER (state = 'active'), max_by(state, number)) AS state,
                       sum(calls)::BIGINT AS calls, sum(successes)::BIGINT AS successes,
                       sum(guard_misses)::BIGINT AS guard_misses, sum(shadows)::BIGINT AS shadows,
                       sum(agreed)::BIGINT AS agreed, min(registered) AS registered, max(moved) AS moved,
                       max(last_called) AS last_called
                FROM crystal_versions GROUP BY tool
            )
            SELECT c.tool, c.signature, f.template, f.goal, c.state, c.versions, c.newest, c.active_version, c.shadow_version,
                   c.calls, c.successes, c.calls - c.successes AS failures, c.guard_misses, c.shadows, c.agreed,
                   coalesce(d.served, 0) AS served, d.saved_microusd, d.saved_ns, c.registered, c.moved, c.last_called
            FROM counted c LEFT JOIN (SELECT signature, template, goal FROM execution_families) f USING (signature)
            LEFT JOIN (
                SELECT tool, count(*) AS served, try_cast(sum(saved_microusd) AS BIGINT) AS saved_microusd,
                       try_cast(sum(saved_ns) AS BIGINT) AS saved_ns
                FROM dispatches WHERE mode = 'crystallized' AND status = 'served' GROUP BY tool
            ) d ON d.tool = c.tool
        """,
        "crystallization_candidates": f"""
            WITH made AS (
                SELECT signature, count(*) AS attempts, avg(cost_microusd) AS microusd,
                       max_by(status, (seq, idx)) AS last_status, max_by(reason, (seq, idx)) AS last_reason
                FROM crystal_attempts GROUP BY signature
            ), overall AS (
                SELECT avg(cost_microusd) AS microusd FROM crystal_attempts
            ), weighed AS (
                SELECT f.*, c.state AS tool_state, coalesce(m.attempts, 0) AS attempts, m.last_status, m.last_reason,
                       f.learner_microusd AS saving_microusd,
                       coalesce(m.microusd, o.microusd, 0.0) AS making_microusd
                FROM execution_families f LEFT JOIN crystals c ON c.signature = f.signature
                LEFT JOIN made m ON m.signature = f.signature CROSS JOIN overall o
                WHERE f.uses >= 5 AND f.success >= 0.95 AND c.active_version IS NULL
            )
            SELECT signature, tool, template, goal, uses, successes, success, wilson_lower,
                   uses * 10 * 0.5 + coalesce(saving_microusd, 0) / 1e6 * 100 * 0.3 + success * 100 * 0.2 AS priority,
                   uses_per_day, saving_microusd, learner_ns AS saving_ns, making_microusd,
                   saving_microusd * uses_per_day * {HORIZON_DAYS} - making_microusd AS net_value_microusd,
                   {HORIZON_DAYS} AS horizon_days,
                   CASE WHEN making_microusd <= 0 THEN 0 WHEN saving_microusd > 0
                        THEN least(ceil(making_microusd / saving_microusd), 9e18)::BIGINT END AS break_even_uses,
                   judged, learner_uses, tool_state, attempts, last_status, last_reason, first_started, last_started
            FROM weighed ORDER BY priority DESC, signature
        """,
    }

    _states: ToolStates | None = None

    def initial(self) -> Any:
        """Return the state before the first event: no tools."""
        return {}

    def advance(self, state: Any, batch: Batch) -> tuple[Any, Rows]:
        """Fold a batch; the state says which versions there are, and how they stand."""
        teller = copy(self)
        teller._states = states = ToolStates(state)
        rows = teller.fold(batch)
        return states.states, rows

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        match body:
            case CrystalRequested():
                yield "_crystal_requests", (
                    body.attempt, body.signature, body.tool, body.by, body.maker, body.made_from, body.held_out,
                    int64(body.budget_microusd),
                )  # fmt: skip
            case CrystalAsked():
                yield "_crystal_questions", (
                    body.attempt, int64(body.number), body.prompt_sha256, body.by, int64(body.reserved_microusd),
                )  # fmt: skip
            case LlmQueried() if body.step.startswith(_ASKED):
                yield "_crystal_replies", (
                    body.step.removeprefix(_ASKED), int64(body.attempt), body.model, body.reply is not None, body.error,
                    int64(body.cost_usd_micros),
                )  # fmt: skip
            case CrystalDrafted():
                yield "_crystal_drafts", (
                    body.attempt, body.source, body.source_sha256, body.program, body.entry, body.params, body.returns,
                    body.capabilities, body.maker, list(body.doubts), body.model, int64(body.cost_microusd), int64(body.duration_ns),
                )  # fmt: skip
            case CrystalChecked():
                yield "_crystal_checks", (
                    body.attempt, body.stage, body.ok, body.reason, body.evidence, int64(body.tried), int64(body.matched),
                    int64(body.duration_ns), list(body.layers),
                )  # fmt: skip
            case CrystalFailed():
                yield "_crystal_failures", (body.attempt, body.signature, body.stage, body.reason)
            case CrystalRegistered():
                yield "_crystal_registrations", (
                    body.tool, int64(body.number), body.signature, body.attempt, body.source, body.source_sha256, body.entry,
                    body.params, body.returns, body.guards, body.capabilities, body.effects, body.limits, int64(body.parent),
                    body.signed, body.key, body.provenance, self._counts(body),
                )  # fmt: skip
            case CrystalMoved():
                yield "crystal_moves", (
                    body.tool, int64(body.number), body.was, body.now, body.reason, int64(body.trials), int64(body.successes),
                    body.lower, self._counts(body),
                )  # fmt: skip
            case CrystalInvoked():
                yield "crystal_calls", (
                    body.tool, int64(body.number), body.request, body.ok, body.guard, body.error, int64(body.duration_ns),
                    int64(body.cpu_ns), int64(body.rss_bytes), list(body.layers), self._counts(body),
                )  # fmt: skip
            case CrystalShadowed():
                yield "crystal_shadows", (
                    body.tool, int64(body.number), body.request, body.agreed, body.reason, int64(body.duration_ns),
                    int64(body.served_ns), self._counts(body),
                )  # fmt: skip

    def _counts(self, event: CrystalRegistered | CrystalMoved | CrystalInvoked | CrystalShadowed) -> bool:
        return (self._states or ToolStates()).counts(event)
