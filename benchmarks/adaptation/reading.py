"""What the log knows of the experiment, by SQL alone."""

from collections.abc import Mapping
from typing import Any

import msgspec
from judged import Judged

import morphogen
from morphogen.bus.settings import Settings

JUDGED = """
    SELECT run, body::JSON::VARCHAR AS body FROM events WHERE type = 'experiment.judged'
    QUALIFY row_number() OVER (PARTITION BY run ORDER BY attempt DESC, seq DESC, idx DESC) = 1
"""
GROWTH = """
    SELECT a.run, a.germinated, a.fossilized, a.pruned, a.contributing, a.params_grown, a.rollbacks
    FROM adaptations a
"""
DECISIONS = """
    WITH newest AS (SELECT run, max(attempt) AS attempt FROM decisions GROUP BY run)
    SELECT run, count(*) AS germinations, count(*) FILTER (helped) AS helped,
           count(*) FILTER (contribution IS NULL) AS unmeasured,
           count(*) FILTER (NOT coalesce(approved, false)) AS unapproved
    FROM decisions JOIN newest USING (run, attempt) WHERE executed AND op = 'germinate' GROUP BY run
"""
CHOICES = """
    WITH newest AS (SELECT run, max(attempt) AS attempt FROM decisions GROUP BY run)
    SELECT run, epoch, slot, blueprint, stage, contribution, reward FROM decisions JOIN newest USING (run, attempt)
    WHERE executed AND op = 'germinate' ORDER BY run, epoch
"""
DANGER = """
    WITH newest AS (SELECT run, max(attempt) AS attempt FROM frames WHERE run <> '' GROUP BY run), failed AS (
        SELECT e.run, e.attempt, e.seq, e.idx, e.body.seed::VARCHAR AS seed FROM events e JOIN newest USING (run, attempt)
        WHERE e.type = 'slot.failed' AND e.body.error::VARCHAR IN ('nonfinite', 'exploding')
    ), heard AS (
        SELECT f.run, f.seq, f.idx, bool_or(coalesce(c.seq < f.seq OR c.seq = f.seq AND c.idx < f.idx, false)) AS heard
        FROM failed f LEFT JOIN slot_changes c
            ON c.run = f.run AND c.attempt = f.attempt AND c.seed = f.seed AND c.to_stage = 'blending'
        GROUP BY ALL
    ), found AS (
        SELECT run, heard FROM heard
        UNION ALL SELECT run, true FROM events JOIN newest USING (run, attempt) WHERE type = 'slot.host_restored'
    )
    SELECT run, count(*) FILTER (heard) AS dangers, count(*) FILTER (NOT heard) AS cut_unheard FROM found GROUP BY run
"""
STANDING = """
    SELECT s.run, s.slot, d.blueprint AS name, g.rng_seed
    FROM slots s JOIN seeds g USING (run, attempt, rank, slot, seed)
    JOIN decisions d ON d.run = s.run AND d.attempt = s.attempt AND d.decision = s.decision
    WHERE s.stage = 'fossilized' ORDER BY s.run, s.germinated
"""
EXPERIENCES = """
    SELECT policy, arg_max(experiences, place) AS experiences FROM (
        SELECT body.policy::VARCHAR AS policy, body.host::VARCHAR AS host, body.experiences::BIGINT AS experiences,
               seq * 1000000 + idx AS place
        FROM events WHERE type = 'experiment.taught'
    ) WHERE host = 'digits' GROUP BY policy
"""


def asked(settings: Settings, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query that sees all that the log holds now."""
    result = morphogen.query(sql, wait=True, timeout=300, settings=settings)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]


def judged_runs(settings: Settings) -> dict[str, Judged]:
    """Return how each run ended, by its name; the newest attempt counts."""
    return {row["run"]: msgspec.json.decode(row["body"], type=Judged) for row in asked(settings, JUDGED)}


def by_run(settings: Settings, sql: str) -> dict[str, dict[str, Any]]:
    """Return the row of each run."""
    return {row["run"]: row for row in asked(settings, sql)}


def topologies(settings: Settings, arm: str, host: str) -> Mapping[int, list[tuple[str, str, int]]]:
    """Return what stood at the end of each run of an arm: slot, name in the menu, seed of its weights, by seed."""
    runs = {name: one for name, one in judged_runs(settings).items() if (one.arm, one.host) == (arm, host)}
    found: dict[int, list[tuple[str, str, int]]] = {one.seed: [] for one in runs.values()}
    for row in asked(settings, STANDING):
        if row["run"] in runs:
            found[runs[row["run"]].seed].append((row["slot"], row["name"], row["rng_seed"]))
    return found
