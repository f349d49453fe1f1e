"""`slots`, `slot_changes`, `contributions`, `epochs`, `adaptations`: how networks grew, one table for each thing said.

Rows of a run are told apart by attempt and rank: a job that begins again grows again. `slots` and `adaptations`
show the newest attempt.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from morphogen.schemas import (
    AdaptationFinished,
    AdaptationStarted,
    EpochMeasured,
    SlotAlphaChanged,
    SlotContribution,
    SlotGate,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
)

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int32, int64

_TYPES = (
    AdaptationStarted, AdaptationFinished, EpochMeasured, SlotGerminated, SlotStageChanged, SlotGate, SlotAlphaChanged,
    SlotHealth, SlotContribution,
)  # fmt: skip
_SIGNALS = ("grad_norm", "grad_ratio", "weight_norm", "output_mean", "output_variance", "nonfinite", "epochs_in_stage")


class Slots(Projection, name="slots", version=1, types=tuple(cls.type for cls in _TYPES)):
    """The life of every slot: seeds, stages, gates, ramps, health, measured contributions; and the epochs around it.

    NULL is "not measured". A contribution is above zero where the seed lowers the loss, an accuracy gain where it
    raises the accuracy. What `slots` says of a seed is NULL where none stands; `last_seed` is the last that did.
    """

    tables = {
        "_adaptation_starts": "policy VARCHAR, policy_version VARCHAR, config VARIANT, seed BIGINT, host_params BIGINT, "
        "label VARCHAR",
        "_adaptation_ends": "epochs INTEGER, germinated INTEGER, fossilized INTEGER, pruned INTEGER, "
        "contributing INTEGER, params_grown BIGINT, rollbacks INTEGER, measured VARIANT",
        "adaptation_sites": "site VARCHAR, depth INTEGER, kind VARCHAR, in_shape BIGINT[], out_shape BIGINT[], "
        "slots INTEGER, params BIGINT",
        "epochs": "epoch INTEGER, train_loss DOUBLE, val_loss DOUBLE, val_accuracy DOUBLE, params_total BIGINT, "
        "params_grown BIGINT, learning_rate DOUBLE, plateau BOOLEAN, n BIGINT",
        "seeds": "slot VARCHAR, site VARCHAR, seed VARCHAR, blueprint VARCHAR, params BIGINT, flops BIGINT, "
        "rng_seed BIGINT, artifact VARCHAR, decision VARCHAR",
        "slot_changes": "slot VARCHAR, site VARCHAR, seed VARCHAR, from_stage VARCHAR, to_stage VARCHAR, "
        "reason VARCHAR, initiator VARCHAR, alpha DOUBLE, epochs_in_stage INTEGER, decision VARCHAR",
        "slot_gates": "slot VARCHAR, site VARCHAR, seed VARCHAR, gate VARCHAR, passed BOOLEAN, checks_passed VARCHAR[], "
        "checks_failed VARCHAR[], measured VARIANT",
        "slot_ramps": "slot VARCHAR, site VARCHAR, seed VARCHAR, alpha_from DOUBLE, alpha_to DOUBLE, ramp VARCHAR, "
        "steps BIGINT, blend VARCHAR, decision VARCHAR",
        "slot_health": "slot VARCHAR, site VARCHAR, stage VARCHAR, alpha DOUBLE, "
        + ", ".join(f"{signal} DOUBLE" for signal in _SIGNALS),
        "contributions": "slot VARCHAR, site VARCHAR, seed VARCHAR, split VARCHAR, n BIGINT, alpha DOUBLE, "
        "loss_with DOUBLE, loss_without DOUBLE, contribution DOUBLE, accuracy_with DOUBLE, accuracy_without DOUBLE, "
        "accuracy_gain DOUBLE",
    }
    views = {
        "adaptations": """
            WITH begun AS (
                SELECT * FROM _adaptation_starts
                QUALIFY row_number() OVER (PARTITION BY run, rank ORDER BY attempt DESC, seq DESC, idx DESC) = 1
            ), places AS (
                SELECT run, attempt, rank, count(DISTINCT site) AS sites FROM adaptation_sites GROUP BY ALL
            ), seen AS (
                SELECT run, attempt, rank, max(epoch)::BIGINT + 1 AS epochs, count(*) FILTER (plateau) AS plateaus,
                       last(val_loss ORDER BY epoch, seq, idx) AS val_loss,
                       last(val_accuracy ORDER BY epoch, seq, idx) AS val_accuracy,
                       last(params_total ORDER BY epoch, seq, idx) AS params_total,
                       last(params_grown ORDER BY epoch, seq, idx) AS params_grown
                FROM epochs GROUP BY ALL
            ), ended AS (
                SELECT * FROM _adaptation_ends
                QUALIFY row_number() OVER (PARTITION BY run, attempt, rank ORDER BY seq DESC, idx DESC) = 1
            ), sown AS (
                SELECT run, attempt, rank, count(*) AS germinated FROM seeds GROUP BY ALL
            ), judged AS (
                SELECT run, attempt, rank, count(*) FILTER (to_stage = 'fossilized') AS fossilized,
                       count(*) FILTER (to_stage = 'pruned') AS pruned
                FROM slot_changes GROUP BY ALL
            )
            SELECT b.run, b.attempt, b.rank, b.label, b.policy, b.policy_version, b.seed,
                   CASE WHEN e.run IS NULL THEN 'growing' ELSE 'finished' END AS status,
                   coalesce(e.epochs, s.epochs) AS epochs, coalesce(s.plateaus, 0) AS plateaus, p.sites,
                   coalesce(e.germinated, sown.germinated, 0)::BIGINT AS germinated,
                   coalesce(e.fossilized, j.fossilized, 0)::BIGINT AS fossilized,
                   coalesce(e.pruned, j.pruned, 0)::BIGINT AS pruned, e.contributing, b.host_params,
                   coalesce(e.params_grown, s.params_grown) AS params_grown,
                   CASE WHEN e.run IS NULL THEN s.params_total
                        ELSE try_cast(b.host_params::HUGEINT + e.params_grown AS BIGINT) END AS params_total,
                   s.val_loss, s.val_accuracy,
                   e.rollbacks, e.measured, b.config, b.time AS started, e.time AS ended
            FROM begun b LEFT JOIN places p USING (run, attempt, rank) LEFT JOIN seen s USING (run, attempt, rank)
            LEFT JOIN ended e USING (run, attempt, rank) LEFT JOIN sown USING (run, attempt, rank)
            LEFT JOIN judged j USING (run, attempt, rank)
        """,
        "slots": """
            WITH newest AS (
                SELECT run, max(attempt) AS attempt FROM (
                    SELECT run, attempt FROM _adaptation_starts UNION ALL SELECT run, attempt FROM slot_changes
                    UNION ALL SELECT run, attempt FROM seeds
                ) GROUP BY run
            ), dormant AS (
                SELECT run, attempt, rank, site || '#' || number AS slot, site
                FROM (SELECT DISTINCT run, attempt, rank, site, slots FROM adaptation_sites), unnest(range(least(slots, 4096))) u(number)
            ), said AS (
                SELECT run, attempt, rank, slot, site, seed, to_stage AS stage, alpha, reason, time, seq, idx FROM slot_changes
                UNION ALL
                SELECT run, attempt, rank, slot, site, seed, 'germinated', NULL, NULL, time, seq, idx FROM seeds
            ), stands AS (
                SELECT * RENAME (seed AS last_seed), CASE WHEN stage NOT IN
                       ('pruned', 'embargoed', 'resetting', 'dormant') THEN seed END AS seed
                FROM said
                QUALIFY row_number() OVER (PARTITION BY run, attempt, rank, slot ORDER BY seq DESC, idx DESC) = 1
            ), blended AS (
                SELECT run, attempt, rank, slot, last(alpha ORDER BY seq, idx) AS alpha FROM (
                    SELECT run, attempt, rank, slot, alpha, seq, idx FROM slot_changes
                    UNION ALL SELECT run, attempt, rank, slot, alpha, seq, idx FROM slot_health
                    UNION ALL SELECT run, attempt, rank, slot, CASE WHEN steps > 0 THEN alpha_from ELSE alpha_to END, seq, idx
                    FROM slot_ramps
                ) GROUP BY ALL
            ), sown AS (
                SELECT * FROM seeds
                QUALIFY row_number() OVER (PARTITION BY run, attempt, rank, slot, seed ORDER BY seq DESC, idx DESC) = 1
            ), tried AS (
                SELECT run, attempt, rank, slot, count(*) AS seeds FROM seeds GROUP BY ALL
            ), weighed AS (
                SELECT * FROM contributions
                QUALIFY row_number() OVER (PARTITION BY run, attempt, rank, slot, seed ORDER BY seq DESC, idx DESC) = 1
            ), every AS (
                SELECT run, attempt, rank, slot, site FROM dormant
                UNION SELECT run, attempt, rank, slot, site FROM stands
            )
            SELECT v.run, v.attempt, v.rank, v.slot, v.site, coalesce(s.stage, 'dormant') AS stage, s.seed, g.blueprint,
                   CASE WHEN s.seed IS NULL THEN 0.0 ELSE coalesce(b.alpha, 0.0) END AS alpha, g.params, g.flops, w.contribution, w.accuracy_gain, g.decision, s.reason,
                   coalesce(t.seeds, 0) AS seeds, s.last_seed, g.time AS germinated, s.time AS changed
            FROM every v JOIN newest n USING (run, attempt) LEFT JOIN stands s USING (run, attempt, rank, slot)
            LEFT JOIN sown g USING (run, attempt, rank, slot, seed) LEFT JOIN blended b USING (run, attempt, rank, slot)
            LEFT JOIN tried t USING (run, attempt, rank, slot) LEFT JOIN weighed w USING (run, attempt, rank, slot, seed)
        """,
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield the rows of one event."""
        body = event.body
        match body:
            case AdaptationStarted():
                yield "_adaptation_starts", (
                    body.policy, body.policy_version, body.config, int64(body.seed), int64(body.host_params), body.label,
                )  # fmt: skip
                for depth, site in enumerate(body.sites):
                    yield "adaptation_sites", (
                        site.site, depth, site.kind, _shape(site.in_shape), _shape(site.out_shape), int32(site.slots),
                        int64(site.params),
                    )  # fmt: skip
            case AdaptationFinished():
                yield "_adaptation_ends", (
                    int32(body.epochs), int32(body.germinated), int32(body.fossilized), int32(body.pruned),
                    int32(body.contributing), int64(body.params_grown), int32(body.rollbacks), body.measured,
                )  # fmt: skip
            case EpochMeasured():
                yield "epochs", (
                    int32(body.epoch), body.train_loss, body.val_loss, body.val_accuracy, int64(body.params_total),
                    int64(body.params_grown), body.learning_rate, body.plateau, int64(body.n),
                )  # fmt: skip
            case SlotGerminated():
                yield "seeds", (
                    body.slot, site_of(body.slot), body.seed, body.blueprint, int64(body.params), int64(body.flops),
                    int64(body.rng_seed), body.artifact, body.decision,
                )  # fmt: skip
            case SlotStageChanged():
                yield "slot_changes", (
                    body.slot, site_of(body.slot), body.seed, body.from_stage, body.to_stage, body.reason, body.initiator,
                    body.alpha, int32(body.epochs_in_stage), body.decision,
                )  # fmt: skip
            case SlotGate():
                yield "slot_gates", (
                    body.slot, site_of(body.slot), body.seed, body.gate, body.passed, body.checks_passed,
                    body.checks_failed, body.measured,
                )  # fmt: skip
            case SlotAlphaChanged():
                yield "slot_ramps", (
                    body.slot, site_of(body.slot), body.seed, body.alpha_from, body.alpha_to, body.ramp, int64(body.steps),
                    body.blend, body.decision,
                )  # fmt: skip
            case SlotHealth():
                yield from _health(body)
            case SlotContribution():
                yield "contributions", (
                    body.slot, site_of(body.slot), body.seed, body.split, int64(body.n), body.alpha, body.loss_with,
                    body.loss_without, _less(body.loss_without, body.loss_with), body.accuracy_with, body.accuracy_without,
                    _less(body.accuracy_with, body.accuracy_without),
                )  # fmt: skip


def site_of(slot: str) -> str:
    """Return the site of a slot `<site>#<number>`."""
    return slot.rpartition("#")[0] or slot


def _health(body: SlotHealth) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield a row for each slot; a signal is NULL where its vector is absent, too short, or marked missing."""
    gone = {signal: set(positions) for signal, positions in body.missing.items()}

    def value(signal: str, at: int) -> float | None:
        vector = getattr(body, signal)
        known = vector is not None and at < len(vector) and at not in gone.get(signal, ())
        return float(vector[at]) if known else None

    for at, slot in enumerate(body.slots):
        stage = body.stages[at] if at < len(body.stages) else None
        yield (
            "slot_health",
            (slot, site_of(slot), stage, value("alpha", at), *(value(signal, at) for signal in _SIGNALS)),
        )


def _less(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _shape(shape: list[int] | None) -> list[int] | None:
    return None if shape is None else [int64(size) for size in shape]
