"""How long a decision takes: every policy, on a graph of 100 layers with a slot each and four blueprints a slot.

    python benchmarks/decisions.py [--layers 100] [--decisions 500] [--policies bandit gnn-ppo] [--json FILE]

A decision is all of it: the observation from the state, its hash, the policy, the guards, the three events. Beside the
wall clock stands the processor time of the thread, which a busy machine does not stretch. Policies take turns, decision
by decision. The graph network has fresh weights: what it has learned does not change what it has to compute.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from morphogen.consumers.policy import Decider, Dish, Limits, config_of, load_policy, names
from morphogen.schemas import SIGNALS, AdaptationStarted, EpochMeasured, Event, LayerHealth, Names, SiteInfo

MENU = (("norm", 64), ("rank1", 96), ("mlp16", 1_500), ("mlp64", 6_000))
SAMPLES = 20  # of layer health an epoch
TARGET = 10.0  # ms, p99


def started(layers: int) -> AdaptationStarted:
    """Return the beginning of a run that may grow beside each of its layers."""
    sites = [
        SiteInfo(site=f"layer{at}", kind="features", in_shape=[64], out_shape=[32], slots=1, params=2_080)
        for at in range(layers)
    ]
    dishes = [Dish(name=name, params=params) for name, params in MENU]
    config = config_of(Limits(horizon=10_000, alphas=(0.5, 1.0)), {site.site: dishes for site in sites})
    return AdaptationStarted(sites=sites, policy="bench", config=config, host_params=2_080 * layers)


def epoch(number: int, layers: Names, generator: np.random.Generator) -> list[tuple[Event, int]]:
    """Return what a run records in one epoch, with the steps."""
    first = number * SAMPLES + 1
    health = [
        LayerHealth(layers=layers, **{name: generator.normal(size=len(layers)).astype("<f4") for name in SIGNALS})
        for _ in range(SAMPLES)
    ]
    end = EpochMeasured(epoch=number, train_loss=1.0, val_loss=1.0, val_accuracy=0.5, plateau=number > 10)
    return [*((event, first + at) for at, event in enumerate(health)), (end, first + SAMPLES - 1)]


def main() -> None:
    """Let the policies take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--decisions", type=int, default=500)
    parser.add_argument("--policies", nargs="*", default=list(names()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    deciders = {name: Decider(load_policy(name, seed=1), scope="bench") for name in options.policies}
    layers, generator = Names(f"layer{at}" for at in range(options.layers)), np.random.default_rng(0)
    wall: dict[str, list[float]] = {name: [] for name in deciders}
    busy: dict[str, list[float]] = {name: [] for name in deciders}
    for decider in deciders.values():
        decider.take(started(options.layers))
    for number in range(options.decisions + 20):
        events = epoch(number, layers, generator)
        for name, decider in deciders.items():
            for event, step in events:
                decider.take(event, step)
            began, worked = time.perf_counter(), time.thread_time()
            decider.decide()
            if number >= 20:  # the windows are full, the caches warm
                wall[name].append((time.perf_counter() - began) * 1e3)
                busy[name].append((time.thread_time() - worked) * 1e3)
    rows = {
        name: {
            "p50_ms": round(float(np.percentile(wall[name], 50)), 2),
            "p99_ms": round(float(np.percentile(wall[name], 99)), 2),
            "cpu_p50_ms": round(float(np.percentile(busy[name], 50)), 2),
            "cpu_p99_ms": round(float(np.percentile(busy[name], 99)), 2),
        }
        for name in deciders
    }
    print(
        f"{options.layers} layers, {options.layers} slots, {options.decisions} decisions each, {os.cpu_count()} cores"
    )
    print(f"{'policy':12} {'p50 ms':>8} {'p99 ms':>8} {'cpu p50':>8} {'cpu p99':>8}   aim: p99 at most {TARGET:g} ms")
    for name, row in rows.items():
        print(f"{name:12} " + " ".join(f"{value:8.2f}" for value in row.values()))
    if options.json:
        told = {"layers": options.layers, "decisions": options.decisions, "machine": platform.processor(), **rows}
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
