"""`executions`, `execution_steps`, `execution_families`: what was done, step by step, and how well it went, goal by goal.

What counts is said once, here and in the fold of `consumers.executions`, and a test holds the two equal: an id is of the
execution that began first with it; of a step, and of an end, the newest telling counts; feedback counts before the end; a
trial is an end in success, failure or timeout.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from morphogen.schemas.executions import (
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    GoalEmbedded,
)

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int32, int64
from .wilson import wilson_sql

_TYPES = (ExecutionStarted, ExecutionStep, ExecutionFinished, ExecutionFeedback, GoalEmbedded)


class Executions(Projection, name="executions", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Executions with their steps and judgements; families over them; the vectors of families' templates.

    Costs are micro-dollars, durations nanoseconds; NULL is not known. Means are over the trials where it is known.
    """

    tables = {
        "_execution_starts": "execution VARCHAR, goal VARCHAR, template VARCHAR, signature VARCHAR, norm_version INTEGER, "
        "params VARIANT, environment VARIANT, environment_sha256 VARCHAR, mode VARCHAR, parent VARCHAR, request VARCHAR, "
        "budget_microusd BIGINT",
        "_execution_steps": "execution VARCHAR, number BIGINT, kind VARCHAR, name VARCHAR, args VARIANT, args_sha256 VARCHAR, "
        "result VARIANT, result_sha256 VARCHAR, result_blob VARCHAR, effect VARCHAR, ok BOOLEAN, error VARCHAR, "
        "duration_ns BIGINT, tokens_in BIGINT, tokens_out BIGINT, cost_microusd BIGINT, model VARCHAR, priced_by VARCHAR",
        "_execution_ends": "execution VARCHAR, outcome VARCHAR, judged_by VARCHAR, score DOUBLE, output VARIANT, "
        "output_sha256 VARCHAR, output_blob VARCHAR, told_steps BIGINT, duration_ns BIGINT, cost_microusd BIGINT, error VARCHAR",
        "execution_feedback": "execution VARCHAR, outcome VARCHAR, judged_by VARCHAR, note VARCHAR",
        "goal_embeddings": "signature VARCHAR, template VARCHAR, model VARCHAR, vector FLOAT[]",
    }
    keys = {"goal_embeddings": ("signature", "model")}
    views = {
        "executions": """
            WITH begun AS (
                SELECT * FROM _execution_starts QUALIFY row_number() OVER (PARTITION BY execution ORDER BY seq, idx) = 1
            ), ended AS (
                SELECT * FROM _execution_ends
                QUALIFY row_number() OVER (PARTITION BY execution ORDER BY seq DESC, idx DESC) = 1
            ), judged AS (
                SELECT * FROM execution_feedback
                QUALIFY row_number() OVER (PARTITION BY execution ORDER BY seq DESC, idx DESC) = 1
            ), counted AS (
                SELECT execution, count(*) AS steps, count(*) FILTER (kind = 'llm') AS questions,
                       try_cast(sum(tokens_in) AS BIGINT) AS tokens_in, try_cast(sum(tokens_out) AS BIGINT) AS tokens_out
                FROM execution_steps GROUP BY execution
            )
            SELECT b.execution, b.signature, b.template, b.goal, b.params, b.mode, b.parent, b.request,
                   CASE WHEN e.execution IS NULL THEN 'unfinished' ELSE coalesce(j.outcome, e.outcome) END AS status,
                   CASE WHEN e.execution IS NOT NULL THEN coalesce(j.outcome, e.outcome) END AS outcome,
                   CASE WHEN e.execution IS NOT NULL THEN coalesce(j.judged_by, e.judged_by) END AS judged_by, j.note, e.score,
                   e.error, e.output, e.output_sha256, e.output_blob, coalesce(c.steps, 0) AS steps,
                   coalesce(c.questions, 0) AS questions, c.tokens_in, c.tokens_out, e.duration_ns, e.cost_microusd,
                   b.budget_microusd, b.environment, b.environment_sha256, b.norm_version, b.time AS started,
                   e.time AS finished, b.run, b.seq, b.idx
            FROM begun b LEFT JOIN ended e USING (execution) LEFT JOIN judged j USING (execution)
            LEFT JOIN counted c USING (execution)
        """,
        "execution_steps": """
            SELECT execution, number, kind, name, args, args_sha256, result, result_sha256, result_blob, effect, ok, error,
                   duration_ns, tokens_in, tokens_out, cost_microusd, model, priced_by, time, run, seq, idx
            FROM _execution_steps
            QUALIFY row_number() OVER (PARTITION BY execution, number ORDER BY seq DESC, idx DESC) = 1
        """,
        "execution_families": f"""
            WITH counted AS (
                SELECT signature, first(template ORDER BY seq, idx) AS template, last(goal ORDER BY seq, idx) AS goal,
                       count(*) FILTER (outcome IN ('success', 'failure', 'timeout')) AS uses,
                       count(*) FILTER (outcome = 'success') AS successes, count(*) FILTER (outcome = 'failure') AS failures,
                       count(*) FILTER (outcome = 'timeout') AS timeouts,
                       count(*) FILTER (outcome = 'success' AND judged_by <> 'nobody') AS judged,
                       count(*) FILTER (outcome NOT IN ('success', 'failure', 'timeout')) AS cancelled,
                       count(*) FILTER (outcome IS NULL) AS unfinished,
                       count(*) FILTER (mode = 'learner' AND outcome IN ('success', 'failure', 'timeout')) AS learner_uses,
                       avg(cost_microusd) FILTER (mode = 'learner' AND outcome IN ('success', 'failure', 'timeout'))
                           AS learner_microusd,
                       avg(duration_ns) FILTER (mode = 'learner' AND outcome IN ('success', 'failure', 'timeout'))
                           AS learner_ns,
                       try_cast(sum(cost_microusd) FILTER (outcome IS NOT NULL) AS BIGINT) AS cost_microusd,
                       min(started) AS first_started, max(started) AS last_started
                FROM executions GROUP BY signature
            )
            SELECT signature, 'tool_' || substr(signature, instr(signature, '-') + 1) AS tool, template, goal,
                   uses, successes, failures, timeouts, judged, cancelled, unfinished,
                   CASE WHEN uses > 0 THEN successes / uses ELSE 0 END AS success,
                   {wilson_sql("successes", "uses")} AS wilson_lower, learner_uses, learner_microusd, learner_ns, cost_microusd,
                   uses / greatest(1.0, (epoch_ns(last_started) - epoch_ns(first_started)) / 86400e9) AS uses_per_day,
                   first_started, last_started
            FROM counted
        """,
        "execution_modes": f"""
            SELECT signature, mode, count(*) AS uses, count(*) FILTER (outcome = 'success') AS successes,
                   {wilson_sql("count(*) FILTER (outcome = 'success')", "count(*)")} AS wilson_lower,
                   avg(cost_microusd) AS mean_microusd, avg(duration_ns) AS mean_ns
            FROM executions WHERE outcome IN ('success', 'failure', 'timeout') GROUP BY signature, mode
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        match body:
            case ExecutionStarted():
                yield "_execution_starts", (
                    body.execution, body.goal, body.template, body.signature, int32(body.norm_version), body.params,
                    body.environment, body.environment_sha256, body.mode, body.parent, body.request,
                    int64(body.budget_microusd),
                )  # fmt: skip
            case ExecutionStep():
                yield "_execution_steps", (
                    body.execution, int64(body.number), body.kind, body.name, body.args, body.args_sha256, body.result,
                    body.result_sha256, body.result_blob, body.effect, body.ok, body.error, int64(body.duration_ns),
                    int64(body.tokens_in), int64(body.tokens_out), int64(body.cost_microusd), body.model, body.priced_by,
                )  # fmt: skip
            case ExecutionFinished():
                yield "_execution_ends", (
                    body.execution, body.outcome, body.judged_by, body.score, body.output, body.output_sha256,
                    body.output_blob, int64(body.steps), int64(body.duration_ns), int64(body.cost_microusd), body.error,
                )  # fmt: skip
            case ExecutionFeedback():
                yield "execution_feedback", (body.execution, body.outcome, body.judged_by, body.note)
            case GoalEmbedded():
                yield "goal_embeddings", (
                    body.signature, body.template, body.model, np.asarray(body.vector, np.float32),
                )  # fmt: skip
