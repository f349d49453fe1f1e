"""What a sweep costs beside what it measures, that a kill loses nothing, and how soon tpe finds what a grid finds.

    python benchmarks/sweep.py [overhead|kills|sampler] [--json FILE]

overhead  share of a sweep's wall time that is not measuring, for a Python tool and for a command, every trial fsynced by the
          broker; beside it Optuna with its journal file, and Optuna in memory, on the same function and the same machine.
kills     a sweep of 200 configurations, killed three times by SIGKILL and resumed: how often each was measured.
sampler   the whole grid of a matrix product is measured once; grid, random and tpe then search the same measurements, with
          several seeds: after how many measurements each has 95% of the grid's best.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOL = """
import time

def measure(a, b, seconds):
    time.sleep(seconds)
    return a * 100.0 + b
"""
PROGRAM = """
system Bench {
  trace_schema { variant Item { case Performance { speed: float } } }
  engineering_loop Tune {
    parameter a: range[1, %(a)d]
    parameter b: range[1, %(b)d]
    measure {
      %(how)s
      metric: Performance.speed
      objective: maximize
    }
  }
}
"""
BY_TOOL = 'tool: "measured:measure" arguments: { seconds: %g }'
BY_COMMAND = 'cmd: ["/bin/sh", "-c", "sleep %g; echo \'{\\"speed\\": {{a}}{{b}}}\'"]'


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as scratch:
        os.environ["MORPHOGEN_HOME"] = str(Path(scratch) / "home")
        try:
            for name, run in (("overhead", overhead), ("kills", kills), ("sampler", sampler)):
                if not options.what or name in options.what:
                    figures[name] = run(Path(scratch), options)
        finally:
            from morphogen.bus import broker
            from morphogen.bus.settings import Settings

            broker.down(Settings.from_environ())
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def overhead(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the engine and Optuna take beside the measured function."""
    found: dict[str, Any] = {}
    rows, columns = options.trials // 10, 10
    print(f"{'overhead of a sweep':44}{'trials':>8}{'measured s':>12}{'wall s':>10}{'overhead':>10}")
    for name, how, seconds in (
        ("tool, 50 ms", BY_TOOL, 0.05),
        ("tool, 10 ms", BY_TOOL, 0.01),
        ("command, 100 ms", BY_COMMAND, 0.1),
    ):
        folder = prepared(scratch / name.replace(" ", "").replace(",", "-"), how % seconds, rows, columns)
        wall, measured, trials = timed(folder)
        found[name] = told(f"morphogen, {name}", trials, measured, wall)
    for name, storage in (("optuna journal file, 50 ms", True), ("optuna in memory, 50 ms", False)):
        wall, measured, trials = optuna_run(scratch, rows, columns, 0.05, storage)
        found[name] = told(name, trials, measured, wall)
    return found


def told(name: str, trials: int, measured: float, wall: float) -> dict[str, float]:
    """Print a line of the table and return its figures."""
    share = (wall - measured) / wall
    print(f"{name:44}{trials:8d}{measured:12.2f}{wall:10.2f}{share:10.1%}")
    return {"trials": trials, "measured_s": measured, "wall_s": wall, "overhead": share}


def prepared(folder: Path, how: str, rows: int, columns: int) -> Path:
    """Write a program and its tool."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.py").write_text(TOOL)
    (folder / "bench.mk").write_text(PROGRAM % {"a": rows, "b": columns, "how": how})
    return folder


def timed(folder: Path) -> tuple[float, float, int]:
    """Run a sweep in this process; return its wall time from its first event to its last, the measured part, and trials."""
    from morphogen.bus.bus import Bus
    from morphogen.producers.loops.runner import Options, start
    from morphogen.schemas import SweepFinished, SweepStarted, TrialFinished

    with Bus.open() as bus:
        run = f"bench-{folder.name}"
        ended = start(bus, folder / "bench.mk", run=run, options=Options(live=True, workspace=folder))
        assert ended.status == "done", ended
        times, measured, trials = {}, 0.0, 0
        for seen in bus.events(run=run, family="sweep"):
            if isinstance(seen.event, SweepStarted | SweepFinished):
                times[type(seen.event)] = seen.record.time
            elif isinstance(seen.event, TrialFinished):
                measured += seen.event.measured
                trials += 1
    return (times[SweepFinished] - times[SweepStarted]) / 1e9, measured, trials


def optuna_run(scratch: Path, rows: int, columns: int, seconds: float, journal: bool) -> tuple[float, float, int]:
    """Run the same function by Optuna's own loop, its cheapest sampler, and its journal file or nothing."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    measured = 0.0

    def objective(trial: Any) -> float:
        nonlocal measured
        a, b = trial.suggest_int("a", 1, rows), trial.suggest_int("b", 1, columns)
        began = time.perf_counter()
        time.sleep(seconds)
        measured += time.perf_counter() - began
        return a * 100.0 + b

    storage = JournalStorage(JournalFileBackend(str(scratch / "optuna.log"))) if journal else None
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), storage=storage)
    began = time.perf_counter()
    study.optimize(objective, n_trials=rows * columns)
    return time.perf_counter() - began, measured, len(study.trials)


def kills(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill a sweep three times, resume it to its end, and count."""
    from morphogen.bus.bus import Bus
    from morphogen.schemas import TrialFinished, TrialStarted

    folder = prepared(scratch / "kills", BY_TOOL % 0.02, options.trials // 10, 10)
    command = [sys.executable, "-m", "morphogen.cli", "loop"]
    run = ["run", str(folder / "bench.mk"), "--live", "--workspace", str(folder), "--run", "kills"]
    killed: list[int] = []
    with Bus.open() as bus:

        def finished() -> int:
            return sum(isinstance(seen.event, TrialFinished) for seen in bus.events(run="kills", family="sweep"))

        for number, share in enumerate((0.2, 0.5, 0.8)):
            arguments = run if number == 0 else ["resume", "kills"]
            process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
            while finished() < share * options.trials:
                assert process.poll() is None, "the sweep ended before it could be killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed.append(finished())
        subprocess.run([*command, "resume", "kills"], check=True, stdout=subprocess.DEVNULL)
        events = [seen.event for seen in bus.events(run="kills", family="sweep")]
    measured = Counter(one.key for one in events if isinstance(one, TrialFinished))
    begun = Counter(one.key for one in events if isinstance(one, TrialStarted))
    times = Counter(measured.values())
    print(f"killed after {killed} trials on record; {len(measured)} configurations, measured n times: {dict(times)}")
    print(f"begun again after a kill: {sum(count - 1 for count in begun.values())}")
    return {"configurations": len(measured), "times": {str(k): v for k, v in times.items()}, "killed_after": killed}


def sampler(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a grid once, and let each sampler search the measurements."""
    from morphogen.producers.loops.sweep.sampler import Sampler, Scored, grid, shuffled
    from morphogen.producers.loops.sweep.space import Choice, Space, key_of
    from morphogen.producers.loops.sweep.tpe import ParzenSampler

    sys.path.insert(0, str(ROOT / "examples" / "knowledge" / "matmul"))
    import kernels

    axes = {
        "order": ("ijk", "ikj"),
        "block": ("1x1", "1x4", "2x4"),
        "tile_i": (16, 64, 256),
        "tile_j": (32, 64, 128, 256),
        "tile_k": (8, 32, 128),
        "threads": (1,),
        "fastmath": (False, True),
    }
    space = Space(tuple(Choice(name, values) for name, values in axes.items()))
    table: dict[str, float] = {}
    began = time.perf_counter()
    for values in itertools.product(*axes.values()):
        config = dict(zip(axes, values, strict=True))
        if config["order"] == "ikj" or config["block"] == "1x1":
            found = [kernels.measure(256, **config)["Performance"]["gflops"] for _ in range(6)]  # type: ignore[arg-type]
            table[key_of(config)] = max(found)  # the least disturbed of six
    best = max(table.values())
    good = sum(value >= 0.95 * best for value in table.values())
    print(
        f"matrix product of 256: {len(table)} configurations of {space.size}, measured in {time.perf_counter() - began:.0f} s; "
        f"best {best:.1f} GFLOPS, {good} within 5% of it"
    )

    def needed(search: Sampler) -> int:
        scored: list[Scored] = []
        seen: set[str] = set()
        attempt = 0
        while True:
            config = search.propose(scored, (), attempt)
            assert config is not None
            key = key_of(config)
            if key not in table or key in seen:
                attempt += 1
                continue
            seen.add(key)
            attempt = 0
            scored.append(Scored(config, table[key]))
            if table[key] >= 0.95 * best:
                return len(scored)

    figures: dict[str, Any] = {"configurations": len(table)}
    print(f"{'measurements to 95% of the best':34}{'median':>8}{'worst':>8}{'share':>8}")
    for name, counts in (
        ("grid, row by row", [needed(grid(space))]),
        ("random", [needed(shuffled(space, seed)) for seed in range(options.seeds)]),
        ("tpe", [needed(ParzenSampler(space, seed=seed)) for seed in range(options.seeds)]),
    ):
        middle = statistics.median(counts)
        print(f"{name:34}{middle:8.1f}{max(counts):8d}{middle / len(table):8.1%}")
        figures[name] = {"median": middle, "worst": max(counts), "share": middle / len(table), "seeds": len(counts)}
    return figures


if __name__ == "__main__":
    main()
