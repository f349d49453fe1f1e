"""What a report tells of a run, read from the tables by SQL."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ReportFailed

Row = Mapping[str, Any]
Ask = Callable[[str, Mapping[str, Any]], Sequence[Row]]
"""Answers one SELECT, with parameters by name, as rows by column."""

POINTS = 1000  # of a curve; of more, each point is the mean of its neighbours
_METRICS = 24  # curves of one run that are drawn
_ROWS = 500  # of a table that are shown


@dataclass(frozen=True)
class Story:
    """A run in rows of its tables. Without growth only `run` and `metrics` have any."""

    run: Row
    adaptation: Row | None = None
    epochs: Sequence[Row] = ()
    decisions: Sequence[Row] = ()
    slots: Sequence[Row] = ()
    contributions: Sequence[Row] = ()
    restores: Sequence[Row] = ()
    failures: Sequence[Row] = ()
    alerts: Sequence[Row] = ()
    metrics: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.run["run"])


_HERE = "run = $run AND attempt = (SELECT attempt FROM a) AND rank = (SELECT rank FROM a)"
_PLACE = "row_number() OVER (ORDER BY seq, idx) AS place"
_PARTS = {
    "run": """
        SELECT 0 AS place, run, status, attempts, started::VARCHAR AS started, ended::VARCHAR AS ended, host, git_commit,
               config::JSON::VARCHAR AS config, error, message
        FROM runs WHERE run = $run
    """,
    "adaptation": """
        SELECT 0 AS place, label, policy, epochs, germinated, fossilized, pruned, host_params, params_grown, val_loss,
               val_accuracy, rollbacks, measured::JSON::VARCHAR AS measured
        FROM a
    """,
    "epochs": f"""
        SELECT epoch AS place, epoch, last(step ORDER BY seq, idx) AS step, last(train_loss ORDER BY seq, idx) AS train_loss,
               last(val_loss ORDER BY seq, idx) AS val_loss, last(val_accuracy ORDER BY seq, idx) AS val_accuracy,
               last(params_total ORDER BY seq, idx) AS params_total
        FROM epochs WHERE {_HERE} GROUP BY epoch
    """,
    "decisions": f"""
        SELECT {_PLACE}, epoch, op, slot, blueprint, alpha, reason, approved, blocked_by, executed, refusal, helped,
               contribution, accuracy_gain, reward
        FROM decisions WHERE {_HERE} AND op <> 'wait'
    """,
    "slots": f"""
        SELECT row_number() OVER (ORDER BY seeds = 0, slot) AS place, slot, stage, seed, alpha, params, contribution,
               accuracy_gain, seeds
        FROM slots WHERE {_HERE}
    """,
    "contributions": f"""
        SELECT row_number() OVER (ORDER BY min(c.seq), min(c.idx)) AS place, c.seed, any_value(d.blueprint) AS blueprint,
               last(c.contribution ORDER BY c.seq, c.idx) AS contribution, last(c.n ORDER BY c.seq, c.idx) AS n,
               last(c.accuracy_gain ORDER BY c.seq, c.idx) AS accuracy_gain, last(c.split ORDER BY c.seq, c.idx) AS split
        FROM (SELECT * FROM contributions WHERE {_HERE}) c
        LEFT JOIN (SELECT slot, seed, decision FROM seeds WHERE {_HERE}) s USING (slot, seed)
        LEFT JOIN (SELECT decision, blueprint FROM decisions WHERE {_HERE}) d USING (decision)
        GROUP BY c.seed
    """,
    "restores": f"SELECT {_PLACE}, reason, step FROM host_restores WHERE {_HERE}",
    "failures": f"SELECT {_PLACE}, step, slot, seed, error, message, recovery, recovered FROM slot_failures WHERE {_HERE}",
    "alerts": f"SELECT {_PLACE}, severity, subject, message FROM alerts WHERE {_HERE}",
    "metrics": f"""
        WITH named AS (
            SELECT name, step, value, row_number() OVER (PARTITION BY name ORDER BY step, seq, idx) - 1 AS at_place,
                   count(*) OVER (PARTITION BY name) AS many
            FROM run_metrics WHERE run = $run AND isfinite(value)
        )
        SELECT row_number() OVER (ORDER BY max(many) DESC, name, min(at_place)) AS place, name,
               avg(coalesce(step, at_place)) AS x, avg(value) AS y
        FROM named
        WHERE name IN (SELECT name FROM named GROUP BY name ORDER BY count(*) DESC, name LIMIT {_METRICS})
        GROUP BY name, at_place * least({POINTS}, many) // many
    """,
}
_LIMITED = ("decisions", "slots", "contributions", "failures", "alerts")


def gather(run: str, ask: Ask) -> Story:
    """Return the story of a run, by one question. Raises ReportFailed where there is none of this name."""
    limits = dict.fromkeys(_LIMITED, f"WHERE place <= {_ROWS}")
    parts = (
        f"(SELECT list(p) FROM (SELECT * FROM ({sql}) {limits.get(name, '')}) p) AS {name}"
        for name, sql in _PARTS.items()
    )
    (answer,) = ask(
        "WITH a AS (SELECT * FROM adaptations WHERE run = $run ORDER BY rank LIMIT 1) SELECT " + ", ".join(parts),
        {"run": run},
    )
    found: dict[str, list[Row]] = {name: sorted(answer[name] or (), key=lambda row: row["place"]) for name in _PARTS}
    if not found["run"]:
        raise ReportFailed(
            _unknown(run, [str(row["run"]) for row in ask("SELECT run FROM runs ORDER BY started DESC", {})])
        )
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in found.pop("metrics"):
        curves.setdefault(str(row["name"]), []).append((float(row["x"]), float(row["y"])))
    (this,), adaptation = found.pop("run"), found.pop("adaptation")
    return Story(run=this, adaptation=adaptation[0] if adaptation else None, metrics=curves, **found)


def _unknown(run: str, known: list[str]) -> str:
    near = difflib.get_close_matches(run, known, n=3)
    if near:
        return f"there is no run {run!r}: did you mean {', '.join(map(repr, near))}?"
    return f"there is no run {run!r}: `morphogen sql 'SELECT run, status FROM runs'` lists them"
