"""What was measured, as a table for the terminal and for the page."""

import statistics
from collections.abc import Iterator
from typing import Any


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the whole table in Markdown."""
    yield "| | asked for | measured |"
    yield "|---|---|---|"
    for row in _rows(found):
        yield "| " + " | ".join(row) + " |"
    yield ""
    machine = found["machine"]
    yield f"{machine['cores']} x86-64 cores, Python {machine['python']}, load average {machine['load']} from other work: times are of a machine so busy."
    yield ""
    yield from _families(found)
    yield ""
    yield from _misleading(found)


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    honest, misled = found["honest"], found["misleading"]
    active = [one for one in honest.values() if one["active"]]
    equal = [
        one for one in active if one["replayed"] and one["replayed"] == one["held_out"] and not one["probed"]["wrong"]
    ]
    yield (
        f"families crystallized by synthesis alone, of {len(honest)}, each equal on all held-out traces",
        "≥ 10 of 12",
        f"{len(active)} of {len(honest)}, {len(equal)} of them equal on all held-out traces and never wrong on new tasks",
    )
    wrong = [name for name, one in misled.items() if one["active"] and one["probed"]["wrong"]]
    none = sum(not one["active"] for one in misled.values())
    yield (
        f"wrong tools promoted, of {len(misled)} families built to mislead",
        "0 of ≥ 8",
        f"{len(wrong)} ({none} without a tool, {len(misled) - none - len(wrong)} with one that steps back)",
    )
    if found["latency"]["median"]:
        yield from _times(found["latency"]["median"], found["latency"]["families"])
    mixed = found["mixed"]
    if mixed:
        share = "unknown" if mixed["share"] is None else f"{100 * mixed['share']:.1f}%"
        yield (
            f"cost of {mixed['requests']:,} mixed requests, of always-LEARNER's",
            "≤ 10%, equal success",
            f"{share}; {mixed['right']} right, {mixed['wrong']} wrong, {mixed['failed']} failed ({100 * mixed['learner_success']:.0f}% right by LEARNER)",
        )
    escapes = found["escapes"]
    if escapes:
        yield ("escapes", "0", f"{escapes['escaped']} of {escapes['attacks']} attacks, {escapes['checks']} checks")
    rebuilt = found["rebuilt"]
    yield ("rebuild of all state from the log", "equal", "equal" if rebuilt["equal"] else f"DIFFERENT: {rebuilt}")


def _times(median: dict[str, float], families: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, str]]:
    whole = f"with the time of the files, requests and queries that it uses {median['fresh']:.1f} and {median['pooled']:.1f} ms"
    yield (
        "CRYSTALLIZED call, isolation included, median",
        "≤ 15 ms fresh, ≤ 2 ms pooled",
        f"{median['fresh_own']:.1f} ms fresh, {median['pooled_own']:.1f} ms pooled; {whole}",
    )
    for name in ("follower", "learner"):
        ratios = sorted(one[name] / one["pooled"] for one in families.values() if name in one)
        if ratios:
            span = f"{ratios[0]:.1f}x, where both wait for the same answers, to {ratios[-1]:.1f}x"
            told = f"{statistics.median(ratios):.1f}x ({span}); {median[name]:.1f} ms"
            yield (f"beside it, in the same run: {name.upper()}, family by family", "≥ 20x", told)
    if "request" in median:
        yield ("a whole request served by a tool, decision and record included", "", f"{median['request']:.1f} ms")


def _families(found: dict[str, Any]) -> Iterator[str]:
    yield "| family | tool | held-out traces | new tasks right / guarded / failed / wrong | made in | a use saves | break-even |"
    yield "|---|---|---|---|---|---|---|"
    for name, one in found["honest"].items():
        probed = one["probed"]
        tried = (
            "" if not one["active"] else " / ".join(str(probed[key]) for key in ("right", "guarded", "failed", "wrong"))
        )
        held = f"{one['replayed']} of {one['held_out']}" if one["held_out"] else ""
        saves = "" if one["saving_microusd"] is None else f"${one['saving_microusd'] / 1e6:.4f}"
        even = "" if one["break_even_uses"] is None else f"{one['break_even_uses']} uses"
        tool = "active" if one["active"] else one["why"]
        yield f"| `{name}` | {_cell(tool)} | {held} | {tried} | {one['seconds']:.1f} s | {saves} | {even} |"


def _misleading(found: dict[str, Any]) -> Iterator[str]:
    yield "| built to mislead | what misleads | what became of it | tasks in use: right / guarded / failed / wrong | by dispatch |"
    yield "|---|---|---|---|---|"
    for name, one in found["misleading"].items():
        probed, sent = one["probed"], one["dispatched"]
        tried = (
            "" if not one["active"] else " / ".join(str(probed[key]) for key in ("right", "guarded", "failed", "wrong"))
        )
        came = "a tool behind guards" if one["active"] else f"no tool: {one['why']}"
        served = f"{sent['wrong']} wrong of {sum(sent[key] for key in ('right', 'wrong', 'guarded', 'failed'))}"
        yield f"| `{name}` | {one['misleads']} | {_cell(came)} | {tried} | {served} |"


def _cell(text: str) -> str:
    short = " ".join(text.split())
    return (short if len(short) <= 160 else short[:157] + "...").replace("|", "\\|")
