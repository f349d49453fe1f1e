"""Five questions that a person asks of a training run, as the demo asks them."""

from typing import NamedTuple


class Question(NamedTuple):
    """A question in words and in SQL."""

    words: str
    sql: str


QUESTIONS = (
    Question(
        "How does the loss fall? (both attempts; the newest attempt of a step counts)",
        """
        SELECT (step - 1) // 264 * 264 + 1 AS from_step, count(*) AS steps,
               round(avg(value), 4) AS loss, bar(avg(value), 0, 2.5, 24) AS curve
        FROM run_metrics WHERE run = 'digits' AND name = 'loss' GROUP BY 1 ORDER BY 1
        """,
    ),
    Question(
        "Which layers move the most and the least, relative to their size?",
        """
        SELECT layer, round(avg(grad_norm), 4) AS grad_norm, round(avg(weight_norm), 2) AS weight_norm,
               printf('%.2e', avg(update_ratio)) AS update_ratio
        FROM layer_health WHERE run = 'digits' GROUP BY layer ORDER BY avg(update_ratio) DESC
        """,
    ),
    Question(
        "Which layers have dead units, at the start and now?",
        """
        SELECT layer, round(arg_min(dead_share, (attempt, step))::DOUBLE, 3) AS dead_first,
               round(arg_max(dead_share, (attempt, step))::DOUBLE, 3) AS dead_now
        FROM layer_health WHERE run = 'digits' AND dead_share IS NOT NULL
        GROUP BY layer ORDER BY dead_now DESC, layer
        """,
    ),
    Question(
        "How fast did each attempt train?",
        """
        SELECT attempt, count(*) AS steps, min(step) AS first_step, max(step) AS last_step,
               CAST(median(value) AS BIGINT) AS samples_per_s
        FROM metrics WHERE run = 'digits' AND name = 'samples_per_s' GROUP BY attempt ORDER BY attempt
        """,
    ),
    Question(
        "What did recording cost? (every second step was watched; log() as the trainer timed it)",
        """
        WITH steps AS (
            SELECT m.value AS step_ms, h.step IS NOT NULL AS watched
            FROM run_metrics m LEFT JOIN (SELECT DISTINCT run, attempt, step FROM layer_health) h
                USING (run, attempt, step)
            WHERE m.run = 'digits' AND m.name = 'step_ms'
        )
        SELECT round(median(step_ms) FILTER (NOT watched), 3) AS bare_step_ms,
               round(median(step_ms) FILTER (watched), 3) AS watched_step_ms,
               (SELECT round(median(value), 1) FROM metrics WHERE run = 'digits' AND name = 'log_us') AS log_us
        FROM steps
        """,
    ),
)
