"""`decisions`: one row a decision, from what was seen to what came of it. `observations`: what policies were shown."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.schemas import Action, DecisionOutcome, DecisionProposed, DecisionVerdict, Observed

from ..fold.batch import Batch, Entry
from ..fold.selection import Selection
from ..projection import Body, Projection
from .bounds import int32, int64
from .slots import site_of

if TYPE_CHECKING:
    import numpy.typing as npt

_TYPES = (Observed, DecisionProposed, DecisionVerdict, DecisionOutcome)
_OBSERVED = (
    "observation",
    "epoch",
    "nodes",
    "kinds",
    "feature_names",
    "features",
    "edges",
    "actions",
    "legal",
    "params",
)


def _gathered() -> str:
    return ", ".join(f"'{name}': {name}{'::JSON' if name == 'actions' else ''}" for name in _OBSERVED)


def _given_back() -> str:
    return ", ".join(f"'{name}': held.{name}" for name in _OBSERVED)


class Decisions(Projection, name="decisions", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Observations, proposals, verdicts and outcomes, and each decision as one row over them.

    `helped` is NULL where no contribution was measured. `features` of an observation is a matrix, row after row, one row
    a node. A decision counts as executed where a seed, a change or a ramp of a slot names it. One that another process took
    belongs to the attempt that had begun before it in the log: the clocks of two hosts do not tell.
    """

    tables = {
        "observations": "observation VARCHAR, epoch BIGINT, nodes VARCHAR[], kinds VARCHAR[], feature_names VARCHAR[], "
        "features FLOAT[], edges BIGINT[], actions VARIANT, legal BOOLEAN[], params BIGINT[]",
        "_proposals": "decision VARCHAR, epoch INTEGER, policy VARCHAR, policy_version VARCHAR, observation VARCHAR, "
        "op VARCHAR, slot VARCHAR, site VARCHAR, blueprint VARCHAR, alpha DOUBLE, ramp VARCHAR, steps BIGINT, "
        "index INTEGER, logprob DOUBLE, value DOUBLE, entropy DOUBLE, uncertainty DOUBLE, confidence DOUBLE, "
        "reason VARCHAR, scores DOUBLE[], latency_ns BIGINT",
        "_verdicts": "decision VARCHAR, approved BOOLEAN, guards VARIANT, blocked_by VARCHAR",
        "outcomes": "decision VARCHAR, slot VARCHAR, site VARCHAR, seed VARCHAR, blueprint VARCHAR, stage VARCHAR, "
        "epochs INTEGER, contribution DOUBLE, accuracy_gain DOUBLE, params BIGINT, reward DOUBLE, terms VARIANT, "
        "final BOOLEAN",
    }
    views = {
        "decisions": """
            WITH proposed AS (
                SELECT p.* REPLACE (CASE WHEN p.attempt > 0 THEN p.attempt ELSE coalesce(a.attempt, 0) END AS attempt)
                FROM (
                    SELECT * FROM _proposals
                    QUALIFY row_number() OVER (PARTITION BY run, rank, decision ORDER BY seq, idx) = 1
                ) p ASOF LEFT JOIN _adaptation_starts a ON p.run = a.run AND p.rank = a.rank AND p.seq >= a.seq
            ), judged AS (
                SELECT * FROM _verdicts
                QUALIFY row_number() OVER (PARTITION BY run, rank, decision ORDER BY seq, idx) = 1
            ), done AS (
                SELECT run, rank, decision FROM seeds WHERE decision IS NOT NULL
                UNION SELECT run, rank, decision FROM slot_changes WHERE decision IS NOT NULL
                UNION SELECT run, rank, decision FROM slot_ramps WHERE decision IS NOT NULL
            ), refused AS (
                SELECT run, rank, decision, first(reason ORDER BY seq, idx) AS refusal
                FROM slot_refusals WHERE decision IS NOT NULL GROUP BY ALL
            ), ended AS (
                SELECT * FROM outcomes QUALIFY row_number() OVER (
                    PARTITION BY run, rank, decision ORDER BY final DESC, seq DESC, idx DESC
                ) = 1
            ), shown AS (
                SELECT run, rank, observation, len(list_filter(legal, lambda x: x)) AS options
                FROM observations
                QUALIFY row_number() OVER (PARTITION BY run, rank, observation ORDER BY seq, idx) = 1
            )
            SELECT p.run, p.attempt, p.rank, p.epoch, p.decision, p.policy, p.policy_version, p.op, p.slot, p.site,
                   p.blueprint, p.alpha, p.ramp, p.steps, p.reason, s.options, j.approved, j.blocked_by,
                   d.decision IS NOT NULL AS executed, r.refusal, e.contribution > 0 AS helped, e.contribution,
                   e.accuracy_gain, e.reward, e.terms, e.params, e.stage, e.seed, e.epochs, p.index, p.logprob, p.value,
                   p.entropy, p.uncertainty, p.confidence, p.scores, p.latency_ns, p.observation, j.guards, p.step, p.time,
                   p.seq, p.idx
            FROM proposed p LEFT JOIN judged j USING (run, rank, decision) LEFT JOIN done d USING (run, rank, decision)
            LEFT JOIN refused r USING (run, rank, decision) LEFT JOIN ended e USING (run, rank, decision)
            LEFT JOIN shown s USING (run, rank, observation)
        """,
    }
    bodies = {
        "decision.observed": Body("observations", f"any_value({{{_gathered()}}})", f"{{{_given_back()}}}::JSON"),
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        match body:
            case Observed():
                yield "observations", (
                    body.observation, int64(body.epoch), list(body.nodes), list(body.kinds), list(body.feature_names),
                    np.asarray(body.features, np.float32), [int64(at) for at in body.edges], body.actions, body.legal,
                    [int64(number) for number in body.params],
                )  # fmt: skip
            case DecisionProposed():
                yield "_proposals", (
                    body.decision, int32(body.epoch), body.policy, body.policy_version, body.observation,
                    *_action(body.action), int32(body.index), body.logprob, body.value, body.entropy, body.uncertainty,
                    body.confidence, body.reason, body.scores, int64(body.latency_ns),
                )  # fmt: skip
            case DecisionVerdict():
                yield "_verdicts", (body.decision, body.approved, body.guards, body.blocked_by)
            case DecisionOutcome():
                yield "outcomes", (
                    body.decision, body.slot, None if body.slot is None else site_of(body.slot), body.seed, body.blueprint,
                    body.stage, int32(body.epochs), body.contribution, body.accuracy_gain, int64(body.params), body.reward,
                    body.terms, body.final,
                )  # fmt: skip

    def holds(self, batch: Batch) -> "npt.NDArray[np.intp]":
        """Return the observations that lose nothing in the table: written anew, they are the same bytes."""
        found: Selection = batch.of("decision.observed")
        written = batch.bodies(found.positions).raws()
        exact = [
            bool(newest) and body.features.dtype == np.float32 and body.encode() == raw
            for raw, body, newest in zip(written, found.bodies, found.newest.tolist(), strict=True)
        ]
        return found.positions[np.array(exact, np.bool_)]


def _action(action: Action) -> tuple[Any, ...]:
    site = None if action.slot is None else site_of(action.slot)
    return (action.op, action.slot, site, action.blueprint, action.alpha, action.ramp, int64(action.steps))
