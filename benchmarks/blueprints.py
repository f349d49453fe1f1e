"""Blueprints: how often predictions hold, how long a proposal takes, how many build, what a cache hit costs.

    python benchmarks/blueprints.py [--seed 1] [--batch 64] [--rounds 7] [--json FILE]

Sites are drawn afresh from the seed: features, sequences and images of the sizes of small networks. All proposals for
them are built, counted and timed, beside what was predicted. Calibration and measurement take turns over all modules, so
that a busy second spoils one block of each; torch has one thread. The workload of the cache is that of a run that
germinates the blueprints of a menu at its sites again and again, with the prefetch that a menu allows.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch

from morphogen.kernels.blueprints import (
    Cache,
    LatencyModel,
    Proposal,
    Request,
    Shape,
    build,
    calibrate,
    counted_flops,
    menu,
    pack,
    propose,
    unpack,
)
from morphogen.kernels.blueprints.errors import BlueprintError
from morphogen.kernels.blueprints.measure import measure_latencies
from morphogen.schemas import SiteInfo

TROUBLES = ("plateau", "bottleneck", "dead", "exploding", "vanishing")


def sites(seed: int, count: int) -> list[tuple[str, Shape, Shape]]:
    """Return sites of each kind, their sizes drawn."""
    rng = random.Random(seed)
    found: list[tuple[str, Shape, Shape]] = []
    for _ in range(count):
        found.append(("features", (rng.randint(2, 256),), (rng.randint(2, 256),)))
        length = rng.randint(4, 64)
        found.append(("sequence", (length, rng.choice((16, 32, 48, 64))), (length, rng.choice((16, 32, 64, 128)))))
        side, planes = rng.choice((8, 12, 16)), rng.choice((3, 8, 16, 32))
        stride = rng.choice((1, 1, 2))
        found.append(("image", (planes, side, side), (rng.choice((8, 16, 32)), side // stride, side // stride)))
    return found


def proposals(wanted: list[tuple[str, Shape, Shape]], latency: LatencyModel) -> tuple[list[Proposal], list[float]]:
    """Return the proposals for all sites, and the seconds of each request."""
    found: list[Proposal] = []
    times = []
    for place, (kind, given, leaving) in enumerate(wanted):
        request = Request(
            site=f"site{place}", kind=kind, in_shape=given, out_shape=leaving, max_params=100_000, seed=place,
            max_flops=4_000_000, trouble=(TROUBLES[place % 5],),
        )  # fmt: skip
        began = time.perf_counter()
        found += propose(request, latency=latency)
        times.append(time.perf_counter() - began)
    return found, times


def share_within(pairs: list[tuple[int, int]], by: float = 0.2) -> float:
    """Return the share of (predicted, measured) that differ by no more than `by` of what was measured."""
    return sum(abs(predicted / measured - 1) <= by for predicted, measured in pairs) / len(pairs)


def cache_figures(rounds: int) -> dict[str, float]:
    """Return the cost of a hit, and the share of hits of a run over the menus of three sites."""
    store: dict[str, bytes] = {}
    shapes = ([64], [2]), ([2], [2]), ([2], [10])
    for given, leaving in shapes:
        site = SiteInfo(site="s", kind="features", in_shape=given, out_shape=leaving, slots=1, params=0)
        for blueprint in menu(site).values():
            data = pack(blueprint, build(blueprint, seed=1, zero_last=False))
            store[unpack(data).address] = data
    names = list(store)
    rng = random.Random(1)
    with Cache(store.__getitem__) as cache:
        for future in cache.prefetch(names[: len(names) // 2]):
            future.result()
        for _ in range(500):
            cache.get(rng.choice(names))
        rate = cache.stats().hit_rate
        times = []
        for _ in range(rounds):
            began = time.perf_counter_ns()
            for name in names:
                cache.get(name, device="cpu")
            times.append((time.perf_counter_ns() - began) / len(names))
    assert rate is not None
    return {"hit_us": statistics.median(times) / 1e3, "hit_rate": rate}


def main() -> None:
    """Measure all of it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sites", type=int, default=12, help="of each kind")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    began = time.perf_counter()
    latency = calibrate(batch=options.batch, rounds=options.rounds)
    calibrated = time.perf_counter() - began
    wanted = sites(options.seed, options.sites)
    found, times = proposals(wanted, latency)
    built = []
    exact = 0
    for proposal in found:
        try:
            module = build(proposal.blueprint, seed=1, zero_last=False)
        except BlueprintError as error:
            print(f"did not build: {error}")
            continue
        count = sum(weight.numel() for weight in module.parameters())
        exact += (count, counted_flops(module, proposal.blueprint.inputs)) == (proposal.params, proposal.flops)
        built.append((proposal, module))
    took = measure_latencies(
        [(module, proposal.blueprint.inputs) for proposal, module in built], batch=options.batch, rounds=options.rounds
    )
    again = measure_latencies(
        [(module, proposal.blueprint.inputs) for proposal, module in built], batch=options.batch, rounds=options.rounds
    )
    pairs = [(p.latency_ns or 0, min(a, b)) for (p, _), a, b in zip(built, took, again, strict=True)]
    figures: dict[str, Any] = {
        "proposals": len(found), "built_share": len(built) / len(found), "exact_share": exact / len(found),
        "within_20": share_within(pairs), "repeats_within_20": share_within(list(zip(took, again, strict=True))),
        "median_error": statistics.median(abs(p / m - 1) for p, m in pairs),
        "calibrate_s": calibrated, "propose_median_s": statistics.median(times), "propose_max_s": max(times),
        **cache_figures(200),
    }  # fmt: skip
    print(
        f"proposals                             {len(found):8} for {len(wanted)} sites; {100 * figures['built_share']:.0f}% build"
    )
    print(f"parameters and operations exact       {100 * figures['exact_share']:7.1f}%")
    print(f"latency within 20%                    {100 * figures['within_20']:7.1f}%  (median error {100 * figures['median_error']:.0f}%; "
          f"two measurements agree within 20% for {100 * figures['repeats_within_20']:.0f}%)")  # fmt: skip
    for kind in ("features", "sequence", "image"):
        of_kind = [
            pair
            for pair, (p, _) in zip(pairs, built, strict=True)
            if len(p.blueprint.inputs) == {"features": 1, "sequence": 2, "image": 3}[kind]
        ]
        figures[f"within_20_{kind}"] = share_within(of_kind)
        print(f"  {kind:36}{100 * share_within(of_kind):7.1f}%  of {len(of_kind)}")
    print(
        f"one request                           {figures['propose_median_s']:8.2f} s median, {figures['propose_max_s']:.2f} s at most"
    )
    print(f"calibration of all kinds              {calibrated:8.1f} s, once a machine")
    print(
        f"cache hit, device checked             {figures['hit_us']:8.2f} µs; {100 * figures['hit_rate']:.1f}% hits on menus of three sites"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
