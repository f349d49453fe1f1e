"""What came of a goal, as people read it and as other programs do."""

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from morphogen.schemas import jsonable

from .saying import cell, console, echo

if TYPE_CHECKING:
    from morphogen.consumers.dispatch import Done
    from morphogen.schemas.dispatch import DispatchDecided, DispatchFellBack

_LOOPS = frozenset({"learner", "orchestrator"})
_MODELS = _LOOPS | {"mixed"}
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))


def print_done(done: "Done", *, backend: str | None, answer_only: bool) -> None:
    """Print the answer, then which mode gave it, what that cost and saved, and which modes did not do it."""
    if done.ok and done.output is not None:
        echo(said(done.output))
    if answer_only:
        return
    for one in done.fell_back:
        echo(fell_back(one))
    echo(summary(done, backend))


def summary(done: "Done", backend: str | None) -> str:
    """Return one line: the mode, how long it took, what it cost and saved."""
    tool = f" ({done.tool} version {done.tool_version})" if done.tool is not None else ""
    parts = [span(done.duration_ns), _cost(done, backend)]
    if done.ok and done.mode not in _LOOPS:
        parts.append(saving(done.saved_microusd, done.saved_ns))
    if done.mode == "none":
        return f"not reached: no mode would do, {span(done.duration_ns)}"
    verdict = "" if done.ok else "failed: "
    return f"{verdict}{done.mode}{tool}: {', '.join(parts)}"


def saving(microusd: int | None, ns: int | None) -> str:
    """Return what was saved, or lost: the cost against the learner's mean, the time against what its requests took."""
    known = [(money(abs(microusd)), microusd >= 0)] if microusd is not None else []
    known += [(span(abs(ns)), ns >= 0)] if ns is not None else []
    less, more = [text for text, good in known if good], [text for text, good in known if not good]
    if not known:
        return "what it saved is not known: the learner has no recorded run of this"
    told = [f"saved {' and '.join(less)}"] if less else []
    told += [f"took {' and '.join(more)} more"] if more else []
    return f"{', '.join(told)}{' than' if more else ' against'} the learner's mean"


def fell_back(one: "DispatchFellBack") -> str:
    """Return one line: which mode did not do it, what is tried instead, and why."""
    guard = f" (guard {one.guard})" if one.guard else ""
    where = f"fell back from {one.mode} to {one.to}" if one.to else f"{one.mode} failed, and no other mode is left"
    return f"{where}{guard}: {one.reason}"


def print_decision(decided: "DispatchDecided") -> None:
    """Print which mode would be taken and why each of the others would not."""
    table = Table(show_edge=False, header_style="bold")
    for name in ("mode", "", "confidence", "cost", "time"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in decided.alternatives:
        table.add_row(
            one.mode,
            "taken" if one.taken else "",
            "" if one.confidence is None else f"{one.confidence:.3f}",
            "" if one.expected_microusd is None else money(one.expected_microusd),
            "" if one.expected_ns is None else span(one.expected_ns),
            cell(one.reason),
        )
    console().print(table)
    near = (
        "" if decided.similarity is None or decided.method != "embedding" else f", similarity {decided.similarity:.3f}"
    )
    matched = "nothing recorded" if decided.matched is None else f"{decided.matched} ({decided.method}{near})"
    echo(f"family {decided.signature}; it builds on {matched}; nothing was done")


def done_json(done: "Done") -> str:
    """Return all of it as one JSON document."""
    document: dict[str, Any] = {
        "request": done.request,
        "ok": done.ok,
        "mode": done.mode,
        "output": done.output,
        "error": done.error,
        "execution": done.execution,
        "tool": done.tool,
        "tool_version": done.tool_version,
        "cost_microusd": done.cost_microusd,
        "duration_ns": done.duration_ns,
        "saved_microusd": done.saved_microusd,
        "saved_ns": done.saved_ns,
        "fell_back": list(done.fell_back),
        "decided": done.decided,
    }
    return json.dumps(jsonable(document), ensure_ascii=False, indent=2)


def decision_json(decided: "DispatchDecided") -> str:
    """Return a decision as one JSON document."""
    return json.dumps(jsonable(decided), ensure_ascii=False, indent=2)


def said(output: Any) -> str:
    """Return an answer: a text as it is, all else as JSON."""
    return output if isinstance(output, str) else json.dumps(jsonable(output), ensure_ascii=False, indent=2)


def money(microusd: int) -> str:
    """Return an amount in dollars, to the micro-dollar."""
    sign = "-" if microusd < 0 else ""
    whole, part = divmod(abs(microusd), 1_000_000)
    cents = f"{part:06d}".rstrip("0")
    return f"{sign}${whole}" + (f".{cents.ljust(2, '0')}" if cents else "")


def span(ns: int) -> str:
    """Return a length of time in the unit that suits it."""
    for size, unit in _UNITS:
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}" if abs(ns) < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns} ns"


def _cost(done: "Done", backend: str | None) -> str:
    if done.cost_microusd is None:
        return "cost unknown (no price of the model is configured)"
    tried = {done.mode, *(one.mode for one in done.fell_back)}
    free = " (a script answered: no model was paid)" if backend == "script" and tried & _MODELS else ""
    return f"cost {money(done.cost_microusd)}{free}"
