"""Crystallization, measured: families recorded by a scripted agent, tools made of half of each, tried on what nobody has seen.

    python benchmarks/crystallization/run.py [--families NAME ...] [--requests 1000] [--no-escapes] [--json FILE]

Takes some six minutes on two cores. Everything is real: a broker, a projector, an HTTP server on loopback, files,
sandboxed calls. The agent's model is a script: what it would cost is configured (stage.PRICES), and it answers at once.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import honest
import misleading
import table
from agent import TaskFamily
from escapes import escapes
from latency import latency
from mixed import learners_success, mixed
from probing import Probed, probe_dispatch, probe_tool
from rebuilt import rebuilt
from recording import RECORDED, record
from shop import Shop, shop
from stage import Stage, stage

from morphogen.consumers.crystallizer.toolsmith import Made
from morphogen.producers.executions import flush

PAGE = Path(__file__).parents[2] / "docs" / "crystallization.md"
KEPT = Path(__file__).parents[2] / "docs" / "measured" / "crystallization.json"
BEGINS, ENDS = "<!-- measured -->", "<!-- /measured -->"
PROBES = 12


def worth(stage: Stage) -> dict[str, dict[str, Any]]:
    """Return what the table of candidates says of each family before there is any tool; nothing where nobody answers SQL."""
    if stage.client is None:
        return {}
    asked = "SELECT signature, priority, wilson_lower, saving_microusd, making_microusd, net_value_microusd, break_even_uses FROM crystallization_candidates"  # fmt: skip
    return {row["signature"]: dict(row) for row in stage.client.query(asked, wait=True)}


def made_of(shop: Shop, family: TaskFamily) -> tuple[Made | str, float]:
    """Make a tool, and have it run beside the learner where there is one."""
    began = time.perf_counter()
    made = shop.make(family)
    seconds = time.perf_counter() - began
    if isinstance(made, Made) and made.ok:
        shop.shadow(family)
    said = "a tool" if isinstance(made, Made) and made.ok else _why(shop, family, made)
    print(f"{family.name:20} {seconds:5.1f} s  {said}", file=sys.stderr, flush=True)
    return made, seconds


def told(shop: Shop, family: TaskFamily, made: Made | str, seconds: float, value: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a family."""
    signature = shop.signature(family)
    version = shop.loader.active(signature)
    attempt = shop.crystallizer.past.registry.attempts.get(made.attempt) if isinstance(made, Made) else None
    replay = next((one for one in attempt.checked if one.stage == "replay"), None) if attempt is not None else None
    return {
        "active": version is not None,
        "why": "" if version is not None else _why(shop, family, made),
        "seconds": seconds,
        "held_out": 0 if replay is None else replay.tried,
        "replayed": 0 if replay is None else replay.matched,
        "saving_microusd": value.get("saving_microusd"),
        "making_microusd": value.get("making_microusd"),
        "break_even_uses": value.get("break_even_uses"),
        "wilson_lower": value.get("wilson_lower"),
        "doubts": [] if version is None else [str(one) for one in version.made.provenance.get("doubts", [])],
        "source": None if version is None else version.made.source,
    }


def _why(shop: Shop, family: TaskFamily, made: Made | str) -> str:
    if isinstance(made, str):
        return made
    if not made.ok:
        return f"{made.stage}: {made.reason}"
    tool = shop.crystallizer.past.registry.of(shop.signature(family))
    return "" if tool is None else f"{tool.newest.state}: {tool.newest.reason}"


def main(options: argparse.Namespace) -> dict[str, Any]:
    """Run the suite in a data folder of its own."""
    chosen = set(options.families or ())
    good = [one for one in honest.FAMILIES if not chosen or one.name in chosen]
    bad = [one for one in misleading.FAMILIES if not chosen or one.name in chosen]
    if not (every := [*good, *bad]):
        raise SystemExit("there is no family of these names; see honest.py and misleading.py")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[1], 1)}
    found: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory() as name, stage(Path(name), sql=True) as open_stage:
        began = time.perf_counter()
        for family in every:
            record(open_stage, family)
        flush()
        found["recorded"] = {"families": len(every), "each": RECORDED, "seconds": time.perf_counter() - began}
        value = worth(open_stage)
        with shop(open_stage, every[0]) as opened:
            made = {family.name: made_of(opened, family) for family in every}
            opened.settle()
            sides: dict[str, dict[str, Any]] = {"honest": {}, "misleading": {}}
            for family in every:
                one = told(opened, family, *made[family.name], value.get(opened.signature(family), {}))
                misleads = family.in_use is not None
                one["probed"] = (
                    probe_tool(opened, family, PROBES, in_use=misleads) if one["active"] else Probed()
                ).as_dict()
                if misleads:
                    one["misleads"] = family.why
                    one["dispatched"] = probe_dispatch(opened, family, PROBES).as_dict()
                sides["misleading" if misleads else "honest"][family.name] = one
            found |= sides
            found["latency"] = latency(opened, good, options.rounds)
            found["mixed"] = mixed(opened, good, options.requests) if options.requests and good else {}
            if found["mixed"]:
                found["mixed"]["learner_success"] = learners_success(opened, good, 50)
            flush()
            found["rebuilt"] = rebuilt(open_stage, opened.crystallizer.past)
    found["escapes"] = escapes() if options.escapes else {}
    return found


def put_into_page(found: dict[str, Any]) -> None:
    """Write the table between the page's marks."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGINS)
    _, _, tail = rest.partition(ENDS)
    PAGE.write_text(f"{head}{BEGINS}\n" + "\n".join(table.lines(found)) + f"\n{ENDS}{tail}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12, help="calls of each tool and way that are timed")
    parser.add_argument("--escapes", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--keep", action="store_true", help="write docs/measured/crystallization.json and the page's table"
    )
    given = parser.parse_args()
    clock = time.perf_counter()
    figures = main(given)
    figures["seconds"] = time.perf_counter() - clock
    print("\n".join(table.lines(figures)))
    for path in (*([KEPT] if given.keep else []), *([given.json] if given.json else [])):
        path.write_text(json.dumps(figures, indent=1, ensure_ascii=False, default=str) + "\n")
    if given.keep:
        put_into_page(figures)
