"""`blueprint_predictions`: what a generator said of its blueprints, and what was then measured."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import BlueprintProposed

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int32, int64


class Blueprints(Projection, name="blueprints", version=1, types=("blueprint.proposed", "blueprint.measured")):
    """Proposals and measurements of blueprints, and each prediction beside its truth.

    `latency_error` is the share by which the prediction missed the newest measurement; `contribution` is the mean over
    the seeds of this blueprint that were judged, in all runs.
    """

    tables = {
        "blueprint_proposals": "request VARCHAR, site VARCHAR, place INTEGER, blueprint VARCHAR, name VARCHAR, spec BLOB, "
        "origin VARCHAR, params BIGINT, flops BIGINT, latency_ns BIGINT, gain DOUBLE, parents VARCHAR[]",
        "blueprint_measurements": "request VARCHAR, blueprint VARCHAR, built BOOLEAN, error VARCHAR, params BIGINT, "
        "flops BIGINT, latency_ns BIGINT, batch BIGINT, device VARCHAR",
    }
    views = {
        "blueprint_predictions": """
            WITH asked AS (
                SELECT * FROM blueprint_measurements WHERE request IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY run, request, blueprint ORDER BY seq DESC, idx DESC) = 1
            ), built AS (
                SELECT * FROM blueprint_measurements
                QUALIFY row_number() OVER (PARTITION BY run, blueprint ORDER BY seq DESC, idx DESC) = 1
            ), judged AS (
                SELECT s.blueprint, count(o.contribution) AS judged, avg(o.contribution) AS contribution
                FROM seeds s JOIN outcomes o USING (run, attempt, rank, decision)
                WHERE o.final GROUP BY s.blueprint
            )
            SELECT p.run, p.request, p.site, p.place, p.blueprint, p.name, p.origin,
                   coalesce(a.built, m.built) AS built, coalesce(a.error, m.error) AS error,
                   p.params, coalesce(a.params, m.params) AS measured_params,
                   p.params = coalesce(a.params, m.params) AS params_exact, p.flops,
                   coalesce(a.flops, m.flops) AS measured_flops, p.flops = coalesce(a.flops, m.flops) AS flops_exact,
                   p.latency_ns, coalesce(a.latency_ns, m.latency_ns) AS measured_latency_ns,
                   abs(p.latency_ns - coalesce(a.latency_ns, m.latency_ns))
                       / nullif(coalesce(a.latency_ns, m.latency_ns), 0) AS latency_error,
                   p.gain, coalesce(j.judged, 0) AS judged, j.contribution, p.parents, p.time, p.seq, p.idx
            FROM blueprint_proposals p
            LEFT JOIN asked a USING (run, request, blueprint)
            LEFT JOIN built m USING (run, blueprint) LEFT JOIN judged j USING (blueprint)
        """
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        if isinstance(body, BlueprintProposed):
            yield "blueprint_proposals", (
                body.request, body.site, int32(body.rank), body.blueprint, body.name, body.spec, body.origin,
                int64(body.params), int64(body.flops), int64(body.latency_ns), body.gain, body.parents,
            )  # fmt: skip
        else:
            yield "blueprint_measurements", (
                body.request, body.blueprint, body.built, body.error, int64(body.params), int64(body.flops),
                int64(body.latency_ns), int64(body.batch), body.device,
            )  # fmt: skip
