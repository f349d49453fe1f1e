"""Families of tasks over a small world of files, tables and pages: done by plain Python, recorded step by step with noise."""

import csv
import io
import json
import random
import statistics
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from morphogen.kernels.synthesis import Example, ToolStep

TOOLS = {
    "files.read_text": "read", "files.list_folder": "read", "files.exists": "read", "files.write_text": "write",
    "files.remove": "write", "sql.query": "read", "http.get": "read",
}  # fmt: skip
Answer = tuple[dict[str, Any], Any]
Family = Callable[[random.Random, "World"], Answer]


class World:
    """Files, pages and tables; every use is written down."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.files: dict[str, str] = {}
        self.pages: dict[str, Any] = {}
        self.ask: Callable[[str], Any] = lambda query: []
        self.steps: list[ToolStep] = []

    def use(self, name: str, **args: Any) -> Any:
        """Use a tool, sometimes with a retry before it or another look beside it."""
        if name == "files.read_text" and self.dice.random() < 0.2:
            self.steps.append(ToolStep(name=name, args=args, ok=False, error="busy, try again"))
        if name != "files.write_text" and self.dice.random() < 0.2:
            self.steps.append(ToolStep(name="files.exists", args={"path": "README.md"}, result=True))
        result = self.done(name.partition(".")[2], **args)
        self.steps.append(ToolStep(name=name, args=args, result=result))
        return result

    def done(self, name: str, **args: Any) -> Any:
        if name == "read_text":
            return self.files[args["path"]]
        if name == "list_folder":
            return sorted(
                path.removeprefix(f"{args['path']}/") for path in self.files if path.startswith(f"{args['path']}/")
            )
        if name == "write_text":
            self.files[args["path"]] = args["text"]
        elif name == "remove":
            del self.files[args["path"]]
        elif name == "query":
            return self.ask(args["query"])
        elif name == "get":
            return self.pages[args["url"]]
        return None


def record(family: Family, count: int, seed: str) -> list[Example]:
    """Do a task again and again, and return how."""
    examples = []
    for number in range(count):
        dice = random.Random(f"{seed} {number}")
        world = World(dice)
        params, output = family(dice, world)
        examples.append(Example(params=params, steps=tuple(world.steps), output=output))
    return examples


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def _losses(dice: random.Random, rows: int) -> str:
    return "step,loss\n" + "".join(f"{step * 10},{dice.random():.4f}\n" for step in range(rows))


def sum_column(dice: random.Random, world: World) -> Answer:
    column, path = dice.choice(["price", "weight"]), f"data/{dice.choice('abcdef')}.csv"
    world.files[path] = "price,weight\n" + "".join(
        f"{dice.randint(1, 99)}.{dice.randint(0, 99):02d},{dice.randint(1, 50)}.25\n"
        for _ in range(dice.randint(5, 15))
    )
    rows = _rows(world.use("files.read_text", path=path))
    return {"path": path, "column": column}, round(sum(float(row[column]) for row in rows), 2)


def summary(dice: random.Random, world: World) -> Answer:
    path = f"runs/r{dice.randint(1, 99)}/metrics.csv"
    world.files[path] = _losses(dice, dice.randint(5, 15))
    losses = [float(row["loss"]) for row in _rows(world.use("files.read_text", path=path))]
    return {"path": path}, {
        "rows": len(losses), "median": round(statistics.median(losses), 4), "lowest": min(losses), "last": losses[-1],
    }  # fmt: skip


def hardest(dice: random.Random, world: World) -> Answer:
    run, k = f"run-{dice.randint(1, 50)}", dice.randint(2, 5)
    world.files[f"runs/{run}/loss.csv"] = _losses(dice, dice.randint(8, 16))
    rows = _rows(world.use("files.read_text", path=f"runs/{run}/loss.csv"))
    rows.sort(key=lambda row: float(row["loss"]), reverse=True)
    return {"run": run, "k": k}, [{"step": int(row["step"]), "loss": float(row["loss"])} for row in rows[:k]]


def best_epoch(dice: random.Random, world: World) -> Answer:
    run = f"r{dice.randint(1, 99)}"
    table = [{"epoch": epoch, "loss": round(dice.random(), 4)} for epoch in range(dice.randint(4, 9))]
    world.ask = lambda query: table
    rows = world.use("sql.query", query=f"SELECT epoch, loss FROM metrics WHERE run = '{run}' ORDER BY epoch")
    best = min(rows, key=lambda row: float(row["loss"]))
    return {"run": run}, f"Best epoch of {run}: {best['epoch']} (loss {best['loss']:.4f})"


def rename(dice: random.Random, world: World) -> Answer:
    folder, prefix = f"ckpt{dice.randint(1, 9)}", dice.choice(["model", "net", "w"])
    for step in dice.sample(range(1, 500), dice.randint(2, 5)):
        world.files[f"{folder}/step_{step}.pt"] = f"weights {dice.random()}"
    names = world.use("files.list_folder", path=folder)
    for name in names:
        text = world.use("files.read_text", path=f"{folder}/{name}")
        number = int(name.removeprefix("step_").removesuffix(".pt"))
        world.use("files.write_text", path=f"{folder}/{prefix}-{number:05d}.pt", text=text)
        world.use("files.remove", path=f"{folder}/{name}")
    return {"folder": folder, "prefix": prefix}, {"renamed": len(names)}


def merge(dice: random.Random, world: World) -> Answer:
    name = f"exp{dice.randint(1, 99)}"
    base = {"lr": dice.choice([0.1, 0.01]), "opt": {"name": "adam", "eps": 1e-8}, "epochs": dice.randint(1, 9)}
    over = {"lr": round(dice.random(), 3), "opt": {"name": dice.choice(["sgd", "adam"])}, "seed": dice.randint(1, 99)}
    world.files |= {"configs/base.json": json.dumps(base), f"configs/{name}.json": json.dumps(over)}
    for path in dice.sample(["configs/base.json", f"configs/{name}.json"], 2):
        world.use("files.read_text", path=path)
    merged = base | over | {"opt": {"eps": 1e-8} | over["opt"]}  # type: ignore[operator]
    world.use("files.write_text", path=f"out/{name}.json", text=json.dumps(merged, indent=2, sort_keys=True) + "\n")
    return {"name": name}, {"path": f"out/{name}.json", "keys": len(merged)}


def levels(dice: random.Random, world: World) -> Answer:
    path = f"logs/{dice.choice(['train', 'eval'])}-{dice.randint(1, 30)}.log"
    words = ["INFO", "INFO", "WARNING", "ERROR"]
    world.files[path] = "\n".join(
        f"2026-03-1{dice.randint(0, 9)}T10:00:{second:02d} {dice.choice(words)} worker{dice.randint(1, 3)}: step done"
        for second in range(dice.randint(5, 25))
    )
    counts = dict.fromkeys(["INFO", "WARNING", "ERROR"], 0)
    for line in world.use("files.read_text", path=path).splitlines():
        counts[line.split()[1]] += 1
    return {"path": path}, counts


def converted(dice: random.Random, world: World) -> Answer:
    miles = round(dice.uniform(1, 500), 1)
    return {"miles": miles}, {
        "kilometres": round(miles * 1.609344, 3),
        "text": f"{miles} mi = {miles * 1.609344:.2f} km",
    }


def celsius(dice: random.Random, world: World) -> Answer:
    degrees = dice.randint(-40, 120)
    return {"degrees": degrees}, round((degrees - 32) * 5 / 9, 1)


def report(dice: random.Random, world: World) -> Answer:
    run = f"run-{dice.randint(1, 99)}"
    tags = dice.sample(["wide", "deep", "slow", "warm"], dice.randint(1, 3))
    found = {"owner": dice.choice(["ada", "bob", "eve"]), "metrics": {"loss": round(dice.random(), 5)}, "tags": tags}
    world.files[f"runs/{run}.json"] = json.dumps(found)
    world.use("files.read_text", path=f"runs/{run}.json")
    text = f"# {run}\n\nOwner: {str(found['owner']).title()}\nLoss: {found['metrics']['loss']:.3f}\n\n"  # type: ignore[index]
    text += "".join(f"- {tag}\n" for tag in tags)
    world.use("files.write_text", path=f"reports/{run}.md", text=text)
    return {"run": run}, f"reports/{run}.md"


def picked(dice: random.Random, world: World) -> Answer:
    number = dice.randint(100, 999)
    url = f"http://127.0.0.1:8080/models/{number}"
    body = {
        "name": f"model-{dice.choice('abcdefgh')}",
        "stats": {"likes": dice.randint(1, 999)},
        "private": dice.random() < 0.5,
    }
    world.pages[url] = {"status": 200, "text": json.dumps(body)}
    found = json.loads(world.use("http.get", url=url)["text"])
    shown = "private" if found["private"] else "public"
    return {"model": number}, {"name": found["name"], "likes": found["stats"]["likes"], "shown": shown}


def disk(dice: random.Random, world: World) -> Answer:
    folder = f"data{dice.randint(1, 30)}"
    for number in dice.sample(range(1000), dice.randint(2, 6)):
        world.files[f"{folder}/f{number}.txt"] = "x" * dice.randint(1, 2000)
    names = world.use("files.list_folder", path=folder)
    order = dice.sample(names, len(names)) if dice.random() < 0.4 else names
    sizes = {name: len(world.use("files.read_text", path=f"{folder}/{name}")) for name in order}
    return {"folder": folder}, {
        "files": len(names),
        "bytes": sum(sizes.values()),
        "largest": max(names, key=lambda name: sizes[name]),
    }


def compared(dice: random.Random, world: World) -> Answer:
    first, second = (f"r{number}" for number in dice.sample(range(100), 2))
    best = {first: round(dice.random(), 4), second: round(dice.random(), 4)}
    world.ask = lambda query: [{"best": best[query.split("'")[1]]}]
    for run in dice.sample([first, second], 2):
        world.use("sql.query", query=f"SELECT min(loss) AS best FROM metrics WHERE run = '{run}'")
    return {"first": first, "second": second}, {
        "better": first if best[first] < best[second] else second, "difference": round(abs(best[first] - best[second]), 4),
    }  # fmt: skip


def schedule(dice: random.Random, world: World) -> Answer:
    start, count, every = (
        date(2026, dice.randint(1, 12), dice.randint(1, 28)),
        dice.randint(2, 6),
        dice.choice([1, 2, 7, 14]),
    )
    days = [(start + timedelta(days=number * every)).isoformat() for number in range(count)]
    return {"start": start.isoformat(), "every": every, "count": count}, days


def ensured(dice: random.Random, world: World) -> Answer:
    run, present = f"r{dice.randint(1, 99)}", dice.random() < 0.5
    path = f"runs/{run}/config.json"
    world.steps.append(ToolStep(name="files.exists", args={"path": path}, result=present))
    if not present:
        world.use("files.write_text", path=path, text=json.dumps({"run": run, "lr": 0.1}))
    return {"run": run}, "kept" if present else "made"


def below(dice: random.Random, world: World) -> Answer:
    path, limit = f"logs/{dice.randint(1, 99)}.txt", round(dice.uniform(0.3, 0.7), 2)
    rows = [(step, round(dice.random(), 3), dice.randint(100, 999)) for step in range(dice.randint(4, 12))]
    world.files[path] = "".join(f"step={step} loss={loss} tokens={tokens}\n" for step, loss, tokens in rows)
    world.use("files.read_text", path=path)
    found = {"below": [step for step, loss, _ in rows if loss < limit], "tokens": sum(tokens for *_, tokens in rows)}
    return {"path": path, "limit": limit}, found


HONEST: tuple[Family, ...] = (
    sum_column, summary, hardest, best_epoch, rename, merge, levels, converted, celsius, report, picked, disk, compared,
    schedule, ensured, below,
)  # fmt: skip
