"""Families that are made to mislead, each with the text that an eager author would write, and the trap that it would fall into.

An agent is what really happens, a text what was made of its recordings, and a trap a later call where the two part, or a change
of the world before one. A tool of such a family may be refused or step back; it may never answer otherwise than the agent.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphogen.kernels.sandbox import Capabilities, Declared, Workspace

Params = dict[str, Any]


@dataclass
class World:
    """A folder, and functions over it: what agents and tools act on."""

    folder: Path
    day: str = "2023-11-14"
    calls: int = 0
    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = Capabilities(
            files=Workspace(self.folder, write=True),
            tools={
                "clock.today": Declared(lambda: self.day, "read"),
                "orders.next": Declared(self._next, "external"),
                "api.get": Declared(self._get, "read"),
            },
        )

    def put(self, **files: str) -> None:
        """Write files; two underscores in a name stand for the dot."""
        for name, text in files.items():
            (self.folder / name.replace("__", ".")).write_text(text)

    def _next(self) -> int:
        self.calls += 1
        return self.calls

    def _get(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())


def _nothing(_: World) -> None:
    """Leave the world as it is."""


@dataclass(frozen=True)
class Misleading:
    """One family. `before` changes the world before each trap is called."""

    name: str
    agent: Callable[..., Any]
    text: str
    params: Sequence[Params]
    traps: Sequence[Params]
    capabilities: Sequence[str] = ()
    prepare: Callable[[World], None] = _nothing
    before: Callable[[World], None] = _nothing


def _price(act: Any, amount: int, currency: str) -> str:
    return f"{amount * {'EUR': 1, 'USD': 2}[currency]}"


def _taxed(act: Any, amount: int) -> float:
    rate = float(act("files.read_text", path="rate.txt"))
    return amount * rate


def _fee(act: Any, amount: int) -> int:
    return amount + (5 if amount < 1000 else 0)


def _copied(act: Any, source: str, target: str) -> str:
    return f"{source} to {target}"


def _ticket(act: Any, name: str) -> str:
    return f"{name}-{random.randrange(10**9)}"


_count = {"at": 0}


def _numbered(act: Any, name: str) -> str:
    _count["at"] += 1
    return f"{name}-{_count['at']}"


def _stamped(act: Any, name: str) -> str:
    return f"{name} of 2023-11-14"  # what an agent with a clock writes on the day of the recordings


def _today(act: Any, name: str) -> str:
    return f"{name} of {act('clock.today')}"


def _duration(act: Any, path: str) -> float:
    found = act("api.get", path=path)
    return found["value"] / {"ms": 1000, "s": 1}[found["unit"]]  # type: ignore[no-any-return]


def _sum_euro(act: Any, path: str) -> int:
    rows = [line.split(",") for line in act("files.read_text", path=path).splitlines()[1:]]
    return sum(int(amount) * (1 if currency == "EUR" else 2) for amount, currency in rows)


def _second_column(act: Any, path: str) -> int:
    head, *rows = [line.split(",") for line in act("files.read_text", path=path).splitlines()]
    return sum(int(row[head.index("amount")]) for row in rows)


def _unless_locked(act: Any, name: str) -> str:
    return "locked" if act("files.exists", path="lock") else f"hello {name}"


def _unique(act: Any, names: list[str]) -> list[str]:
    return sorted(set(names))


def _reported(act: Any, name: str) -> str:
    act("files.write_text", path=f"{name}.txt", text=f"report of {name}\n")
    return name


def _ordered(act: Any, name: str) -> str:
    return f"{name} {act('orders.next')}"


def _two_written(act: Any, name: str) -> None:
    for path in "ab":
        act("files.write_text", path=path, text=name)


def _better(act: Any, first: str, second: str) -> str:
    one, other = (float(act("files.read_text", path=f"{name}.txt")) for name in (first, second))
    return first if one < other else second


def _pairs(world: World) -> None:
    for at in range(20):
        world.put(**{f"a{at}__txt": f"{at}.1", f"b{at}__txt": f"{at}.{at + 2}"})


def _turned(world: World) -> None:
    world.put(a3__txt="9", b3__txt="1")


def _first(act: Any, k: int, path: str) -> list[str]:
    return act("files.read_text", path=path).splitlines()[:k]  # type: ignore[no-any-return]


def _as_long(world: World) -> None:
    for at in range(20):
        world.put(**{f"q{at}__txt": "".join(f"job {at} {line}\n" for line in range(2 + at % 7))})


def _free(act: Any, gib: int) -> int:
    return 0 if gib <= 10 else gib * 2


def _tables(world: World) -> None:
    for at in range(20):
        rows = "".join(f"{at * 3 + row},EUR\n" for row in range(1 + at % 4))
        world.put(
            **{f"t{at}__csv": f"amount,currency\n{rows}", f"m{at}__json": json.dumps({"value": at * 7, "unit": "ms"})}
        )


def _tool(body: str, params: str, returns: str, imports: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f'{imports}def run({params}) -> {returns}:\n    """Do it."""\n{lines}\n'


_NAMES = [{"name": f"n{at}"} for at in range(20)]
_AMOUNTS = [{"amount": at * 5 + 1} for at in range(20)]
_PATHS = [{"path": f"t{at}.csv"} for at in range(20)]
_SPLIT = 'rows = [line.split(",") for line in files.read_text(path).splitlines()[1:]]\n'

FAMILIES = (
    Misleading(
        "a parameter that never varied", _price, _tool('return f"{amount}"', "amount: int, currency: str", "str"),
        [{"amount": at, "currency": "EUR"} for at in range(20)], [{"amount": 4, "currency": "USD"}],
    ),
    Misleading(
        "a rate that is read and ignored", _taxed,
        _tool('files.read_text("rate.txt")\nreturn amount * 0.2', "amount: int", "float"), _AMOUNTS, [{"amount": 6}],
        ["files.read_text"], lambda world: world.put(rate__txt="0.2"), lambda world: world.put(rate__txt="0.3"),
    ),
    Misleading(
        "a rate that is not read at all", _taxed, _tool("return amount * 0.2", "amount: int", "float"), _AMOUNTS, [{"amount": 6}],
        [], lambda world: world.put(rate__txt="0.2"), lambda world: world.put(rate__txt="0.3"),
    ),
    Misleading(
        "a branch beyond the recorded range", _fee, _tool("return amount + 5", "amount: int", "int"), _AMOUNTS,
        [{"amount": 1000}, {"amount": 10**6}],
    ),
    Misleading(
        "two parameters that were always equal", _copied,
        _tool('return f"{source} to {source}"', "source: str, target: str", "str"),
        [{"source": f"s{at}", "target": f"s{at}"} for at in range(20)], [{"source": "s1", "target": "s2"}],
    ),
    Misleading(
        "the first was always the better one", _better,
        _tool('files.read_text(f"{first}.txt")\nfiles.read_text(f"{second}.txt")\nreturn first', "first: str, second: str", "str"),
        [{"first": f"a{at}", "second": f"b{at}"} for at in range(20)], [{"first": "a3", "second": "b3"}], ["files.read_text"],
        _pairs, _turned,
    ),
    Misleading(
        "a number that was always the length", _first,
        _tool("return files.read_text(path).splitlines()", "k: int, path: str", "list[str]"),
        [{"k": 2 + at % 7, "path": f"q{at}.txt"} for at in range(20)], [{"k": 2, "path": "q4.txt"}], ["files.read_text"], _as_long,
    ),
    Misleading(
        "a free tier that nobody asked for", _free, _tool("return gib * 2", "gib: int", "int"),
        [{"gib": 20 + 40 * at} for at in range(20)], [{"gib": 5}, {"gib": 10}],
    ),
    Misleading("chance", _ticket, _tool('return f"{name}-7"', "name: str", "str"), _NAMES, [{"name": "n3"}]),
    Misleading("a hidden counter", _numbered, _tool('return f"{name}-1"', "name: str", "str"), _NAMES, [{"name": "n3"}]),
    Misleading(
        "a counter outside, left unasked", _ordered, _tool('return f"{name} 1"', "name: str", "str"), _NAMES, [{"name": "n3"}],
    ),
    Misleading(
        "the day of the recordings in the text", _stamped, _tool('return f"{name} of 2023-11-14"', "name: str", "str"),
        _NAMES, [],
    ),
    Misleading(
        "a clock that is not asked", _today, _tool('return f"{name} of 2023-11-14"', "name: str", "str"), _NAMES,
        [{"name": "n3"}], [], before=lambda world: setattr(world, "day", "2023-11-15"),
    ),
    Misleading(
        "a unit that was always the same", _duration,
        _tool('return api.get(path)["value"] / 1000', "path: str", "float"),
        [{"path": f"m{at}.json"} for at in range(20)], [{"path": "m3.json"}], ["api.get"], _tables,
        lambda world: world.put(m3__json='{"value": 21, "unit": "s"}'),
    ),
    Misleading(
        "a column that was always the same", _sum_euro,
        _tool(_SPLIT + "return sum(int(row[0]) for row in rows)", "path: str", "int"), _PATHS, [{"path": "t3.csv"}],
        ["files.read_text"], _tables, lambda world: world.put(t3__csv="amount,currency\n5,USD\n"),
    ),
    Misleading(
        "columns that were always in one order", _second_column,
        _tool(_SPLIT + "return sum(int(row[0]) for row in rows)", "path: str", "int"), _PATHS, [{"path": "t3.csv"}],
        ["files.read_text"], _tables, lambda world: world.put(t3__csv="rank,amount,currency\n1,50,EUR\n"),
    ),
    Misleading(
        "a lock that was never there", _unless_locked, _tool('return f"hello {name}"', "name: str", "str"), _NAMES,
        [{"name": "n3"}], [], before=lambda world: world.put(lock=""),
    ),
    Misleading(
        "a text that depends on the hash seed", _unique, _tool("return list(set(names))", "names: list[str]", "list[str]"),
        [{"names": [f"a{at}", f"a{at}"]} for at in range(20)], [{"names": ["x1", "x2", "x3", "x4"]}],
    ),
    Misleading(
        "answers that were learned by heart", _taxed,
        _tool("return {1: 0.2, 6: 1.2}[amount]", "amount: int", "float"), _AMOUNTS, [{"amount": 6}],
        [], lambda world: world.put(rate__txt="0.2"),
    ),
    Misleading(
        "a change of the world that is left out", _reported, _tool("return name", "name: str", "str"), _NAMES, [{"name": "n3"}],
    ),
    Misleading(
        "a change of the world that is made twice", _reported,
        _tool('for _ in range(2):\n    files.write_text(f"{name}.txt", f"report of {name}\\n")\nreturn name', "name: str", "str"),
        _NAMES, [{"name": "n3"}], ["files.write_text"],
    ),
    Misleading(
        "another order of two changes", _two_written,
        _tool('files.write_text("b", name)\nreturn files.write_text("a", name)', "name: str", "None"), _NAMES, [{"name": "n3"}],
        ["files.write_text"],
    ),
    Misleading(
        "a capability that the agent never used", _reported,
        _tool('files.remove("t1.csv")\nfiles.write_text(f"{name}.txt", f"report of {name}\\n")\nreturn name', "name: str", "str"),
        _NAMES, [{"name": "n3"}], ["files.remove", "files.write_text"], _tables,
    ),
)  # fmt: skip
