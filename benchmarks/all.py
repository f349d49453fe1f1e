"""Every benchmark in turn, and the table of the README from what they print.

    python benchmarks/all.py [--keep FOLDER]

Takes some ten minutes. Run it on a machine that does nothing else: each script measures us and the alternative
side by side, so that ratios hold where absolute figures do not.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = {
    "log_call": ["log_call.py"],
    "watch": ["watch_overhead.py", "--rounds", "40"],
    "health": ["pipeline.py", "health", "--events", "60000"],
    "scalars": ["pipeline.py", "scalars", "--events", "1500000"],
    "latency": ["pipeline.py", "latency"],
    "idle": ["pipeline.py", "idle"],
    "rebuild": ["rebuild.py", "--events", "50000"],
    "sql": ["sql_service.py"],
    "blobs": ["blobs.py"],
    "parse": ["knowledge_parse.py"],
    "facts": ["facts.py", "--rounds", "3"],
    "loops": ["loops.py"],
    "sweep": ["sweep.py"],
    "matmul": ["matmul.py"],
    "decisions": ["decisions.py"],
    "blueprints": ["blueprints.py"],
    "overhead": ["adaptation/overhead.py"],
}


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (what, target, measured) for each line of the table that was measured."""
    lines: list[tuple[str, str, str]] = []
    if log := found.get("log_call"):
        ours = log["morphogen"]
        measured = f"{ours['median_us']:.1f} / {ours['p99_us']:.1f} µs"
        for name in ("wandb offline", "tensorboard"):
            if name in log:
                measured += f"; {name} {log[name]['median_us']:.0f} µs ({log[name]['ratio']:.0f}x)"
        lines.append(
            ("`log()` of 32 scalars, median / p99", "≤ 3 / ≤ 15 µs; ≥ 30x wandb, ≥ 200x TensorBoard", measured)
        )
    if watch := found.get("watch"):
        parts = [
            f"{name}: {kind['overhead_percent']:+.1f}%" for name, kind in watch["kinds"].items() if name != "bare loop"
        ]
        lines.append(("`watch` on a 3 ms step of 16 layers", "every=1 ≤ 8%, every=10 ≤ 1%", "; ".join(parts)))
    if health := found.get("health"):
        lines.append(
            ("layer-health rows published", "≥ 4 M rows/s", f"{health['published_rows_s'] / 1e6:.2f} M rows/s")
        )
        share = f"{health['live_rows_s'] / 1e6:.2f} M rows/s, {100 * health['live_share_of_bulk']:.0f}% of DuckDB's bulk insert"
        lines.append(("the same, log to DuckDB, live", "≥ 2 M rows/s, ≥ 35% of bulk insert", share))
    if scalars := found.get("scalars"):
        lines.append(("events of one scalar, log to DuckDB", "≥ 400k/s", f"{scalars['events_s'] / 1e3:.0f}k/s"))
    if latency := found.get("latency"):
        measured = f"p99 {latency['p99_ms']:.1f} ms, median {latency['median_ms']:.1f} ms"
        lines.append(("log() to visible in SQL at 10k events/s, fsync always", "p99 ≤ 25 ms", measured))
    if rebuild := found.get("rebuild"):
        measured = f"{rebuild['rebuild_rows_s'] / 1e6:.2f} M rows/s, {100 * rebuild['share_of_bulk']:.0f}% of DuckDB reading equal rows"
        lines.append(("rebuild from archive", "≥ 3 M rows/s", measured))
    if sql := found.get("sql"):
        count = sql["results"]["count(*)"]["service"]
        measured = f"{count['median_ms']:.1f} ms; {count['faster_than_copy']:.0f}x faster than copy and open"
        lines.append(("SQL service, count(*) on 1 M rows while writing", "median ≤ 5 ms", measured))
    if idle := found.get("idle"):
        lines.append(
            (
                "idle broker and projector",
                "≤ 200 MB, ≤ 1% CPU",
                f"{idle['rss_mb']:.0f} MB, {idle['cpu_percent']:.2f}% CPU",
            )
        )
    if blobs := found.get("blobs"):
        lines.append(("blob read, against nats-py's object store", "≥ 10x", f"{blobs['get_ratio']:.0f}x"))
    return lines + growth_rows(found) + knowledge_rows(found)


def growth_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of growth: what a step pays for it, and how long a decision takes."""
    lines: list[tuple[str, str, str]] = []
    if overhead := found.get("overhead"):
        told = "; ".join(
            f"{name}: {line['overhead_percent']['wall']:+.1f}% ({line['noise_percent']['wall']:+.1f}% noise)"
            for name, case in overhead["cases"].items()
            for line in case
            if line["every"] is None
        )
        lines.append(("a step with dormant slots, recorded, layers watched as growth needs", "≤ 5%", told))
    if decisions := found.get("decisions"):
        told = ", ".join(
            f"{name} {one['p99_ms']:.1f} ({one['cpu_p99_ms']:.1f} of processor)"
            for name, one in decisions.items()
            if isinstance(one, dict)
        )
        lines.append((f"a decision over {decisions['layers']} layers, p99 in ms", "≤ 10 ms", told))
    return lines


def knowledge_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of the knowledge language, its facts and its loops."""
    lines: list[tuple[str, str, str]] = []
    if parse := found.get("parse"):
        share = f"{parse['morphogen_s']:.2f} s; Python's `ast.parse` in C {parse['ast.parse_s']:.2f} s"
        lines.append(("10,000 lines of knowledge to the typed tree", "≤ 1 s", share))
    if facts := found.get("facts"):
        rates = [facts[name] / 1e3 for name in ("stream_items_s", "from_log_at_once_items_s", "loop_items_s")]
        told = f"{rates[0]:.0f}k items/s, {rates[1]:.0f}k from the bytes of the log; a loop in Python {rates[2]:.0f}k"
        lines.append(("20 facts streaming on one core", "≥ 500k items/s", told))
        ten = [one for one in facts.values() if isinstance(one, dict) and one.get("rows", 0) >= 10_000_000]
        if ten:
            times = [one["view_ms"] for one in ten]
            told = f"{min(times):.0f} to {max(times):.0f} ms; by hand " + ", ".join(
                f"{one['by_hand_ms']:.0f} ms ({one['view_ms']:.0f} ours)" for one in ten if "by_hand_ms" in one
            )
            lines.append((f"SQL over 10 M items, a count by group of each of {len(ten)} facts", "≤ 1 s", told))
    if loops := found.get("loops"):
        cost = loops["overhead"]
        told = f"{cost['log_median_ms']:.2f} ms; SQLite, WAL, FULL {cost['sqlite_median_ms']:.2f} ms"
        lines.append(("a step of a loop, its event written, fsync on, median", "≤ 3 ms", told))
        if ended := loops["resume"]:
            told = f"{ended['same_artifacts']} same artifacts, {ended['same_state']} same state, {ended['effects_doubled']} effects doubled"
            lines.append(
                (f"resume after SIGKILL at {ended['kills']} moments of 30 steps", "all the same, 0 doubled", told)
            )
    if sweep := found.get("sweep"):
        cost = sweep["overhead"]
        told = ", ".join(f"{name} {one['overhead']:.1%}" for name, one in cost.items())
        lines.append(("the engine's own share of a sweep", "≤ 5%", told))
        times = sweep["kills"]["times"]
        told = ", ".join(f"{count} measured {often}x" for often, count in times.items())
        lines.append(("200 configurations, killed three times", "each measured once", told))
        lines.append(("measurements to 95% of the grid's best", "≤ 25% of the grid", sampled(sweep["sampler"])))
    if tuned := found.get("matmul"):
        told = f"{tuned['speedup']:.1f}x ({tuned['low']:.1f} to {tuned['high']:.1f})"
        lines.append(("`matmul.mk` against three plain loops, in turn", "≥ 5x", told))
    return lines


def sampled(found: dict[str, Any]) -> str:
    """Return what share of the grid each sampler took, by median over seeds."""
    return ", ".join(f"{name} {one['share']:.1%}" for name, one in found.items() if isinstance(one, dict))


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--keep", type=Path, help="folder for the figures and the table")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="morphogen-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failed: list[str] = []
    for name, command in SCRIPTS.items():
        path = folder / f"{name}.json"
        if name in options.only:
            script, *arguments = command
            print(f"--- {script} {' '.join(arguments)}", flush=True)
            run = subprocess.run([sys.executable, str(HERE / script), *arguments, "--json", str(path)], check=False)
            if run.returncode:
                failed.append(script)
        if path.exists():
            found[name] = json.loads(path.read_text())
    table = ["| | must reach | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows(found))]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    text = "\n".join([f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine}.", "", *table, ""])
    (folder / "table.md").write_text(text)
    print(text)
    if failed:
        sys.exit(f"failed, and not in the table or with older figures: {', '.join(failed)}")


if __name__ == "__main__":
    main()
