"""A family of executions over real functions, recorded as an agent would, and who drafts texts for it from a list."""

from collections.abc import Iterable, Mapping
from typing import Any

from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer.annotations import infer
from morphogen.consumers.crystallizer.drafting import Question, Reply
from morphogen.consumers.crystallizer.drafts import parameters
from morphogen.consumers.crystallizer.source import source_sha256
from morphogen.consumers.crystallizer.splitting import attempt_id
from morphogen.consumers.executions import At, Step, Trace
from morphogen.kernels.sandbox import Capabilities, Declared, value_sha256
from morphogen.producers import executions
from morphogen.schemas import CrystalChecked, CrystalDrafted, CrystalRegistered, CrystalRequested, MorphogenError
from morphogen.schemas.crystals import Guard
from morphogen.schemas.goals import signature, template

GOAL = "What do {count} pieces of {item} cost"
SIGNATURE = signature(GOAL)
TEMPLATE = template(GOAL)
TOOL = f"tool_{SIGNATURE.partition('-')[2]}"
PRICES = {
    "bolt": 12,
    "nut": 7,
    "screw": 5,
    "washer": 3,
    "hinge": 140,
    "rail": 515,
    "knob": 99,
    "hook": 31,
    "pin": 2,
    "cap": 8,
}
ITEMS = tuple(PRICES)

GOOD = '''"""Price pieces of an item."""


def run(count: int, item: str) -> dict:
    """Return what so many pieces of an item cost."""
    price = shop.price(item=item)
    return {"item": item, "cents": price["cents"] * count}
'''
WRONG = GOOD.replace("* count", "+ count")
OUTSIDE = GOOD.replace('"""Price pieces of an item."""', "import os")
FENCED = "Here it is:\n```python\n{}```\nIt multiplies."


def price(item: str) -> dict[str, Any]:
    return {"item": item, "cents": PRICES[item]}


def shop() -> Capabilities:
    return Capabilities(tools={"shop.price": Declared(price, "read")})


def course(at: int) -> dict[str, Any]:
    return {"count": at % 7 + 1, "item": ITEMS[at % len(ITEMS)]}


def record(
    settings: Settings, numbers: Iterable[int], *, cost: int | None = 40_000, wrong: int = 0, each: int = 0
) -> list[str]:
    """Record one execution for each number, as an agent that asks a model for the sum; return their ids.

    `wrong` is a fee on the whole, `each` one on every piece.
    """
    made = []
    for at in numbers:
        params = course(at)
        with executions.execution(GOAL, params=params, capabilities=shop(), settings=settings) as ex:
            cents = ex.call("shop.price", item=params["item"])["cents"] * params["count"] + each * params["count"]
            ex.asked(prompt="add up", reply=str(cents), model="m", cost_microusd=cost)
            ex.finish({"item": params["item"], "cents": cents + wrong}, judged_by="assertion")
        made.append(ex.id)
    assert executions.flush(20)
    return made


def trace(at: int, **changes: Any) -> Trace:
    """Return what `record` would record, without a log."""
    params = course(at)
    found = price(params["item"])
    step = Step(
        number=0,
        kind="tool",
        name="shop.price",
        args={"item": params["item"]},
        args_sha256=value_sha256({"item": params["item"]}),
        result=found,
        result_sha256=value_sha256(found),
        effect="read",
    )
    output = {"item": params["item"], "cents": found["cents"] * params["count"]}
    told: dict[str, Any] = {
        "execution": f"x{at}",
        "goal": GOAL,
        "template": TEMPLATE,
        "signature": SIGNATURE,
        "params": params,
        "environment": {"python": "3.11"},
        "steps": (step,),
        "outcome": "success",
        "judged_by": "assertion",
        "output": output,
        "output_sha256": value_sha256(output),
        "duration_ns": 10**6,
        "cost_microusd": 40_000,
        "at": At(1, at, 1_700_000_000 * 10**9 + at, stored_ns=1_700_000_000 * 10**9 + at),
    }
    return Trace(**{**told, **changes})


def making(count: int = 10, source: str = GOOD, tool: str = TOOL) -> dict[str, Any]:
    """Return the events of a version's making, and the executions that it was proven on, as a package takes them."""
    traces = [trace(at) for at in range(count)]
    attempt = attempt_id(SIGNATURE, [one.execution for one in traces], "llm")
    shared: Mapping[str, Any] = {
        "attempt": attempt,
        "source": source,
        "source_sha256": source_sha256(source),
        "params": parameters(traces),
        "returns": str(infer(one.output for one in traces)),
        "capabilities": ["shop.price"],
    }
    return {
        "template": TEMPLATE,
        "requested": CrystalRequested(
            attempt=attempt, signature=SIGNATURE, tool=tool, maker="llm", made_from=["made"],
            held_out=[one.execution for one in traces],
        ),
        "drafted": CrystalDrafted(**shared, maker="llm"),
        "checked": (CrystalChecked(attempt=attempt, stage="parse", ok=True),),
        "registered": CrystalRegistered(
            **shared, tool=tool, number=1, signature=SIGNATURE, effects=["read"],
            guards=[Guard(kind="type", subject="count", expected="int")], provenance={"replayed": count},
        ),
        "traces": tuple(traces),
    }  # fmt: skip


class Drafting:
    """Answers from a list, in order, and counts. `cost` is of each reply; `worst` what asking may cost at most."""

    name = "listed"

    def __init__(self, *texts: str, cost: int | None = 1000, worst: int | None = 5000) -> None:
        self.texts, self.cost, self.most = list(texts), cost, worst
        self.asked: list[Question] = []

    def worst(self, question: Question) -> int | None:
        return self.most

    def ask(self, question: Question) -> Reply:
        self.asked.append(question)
        if not self.texts:
            raise MorphogenError("the list is empty")
        return Reply(text=self.texts.pop(0), model="m", tokens_in=10, tokens_out=10, cost_microusd=self.cost)
