"""Tasks that people with training jobs have again and again. Each is done by plain Python of its own over real tools."""

import csv
import io
import json
import random
from datetime import date, timedelta
from typing import Any

from agent import Agent, TaskFamily
from world import World

NAMES = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "indigo", "juniper", "krill", "lotus")
README = ("files.read_text", {"path": "README.md"})
LOOK = ("files.list_folder", {"path": ""})


def run_of(dice: random.Random, number: int) -> str:
    """Return a run's name that no other task has."""
    return f"{dice.choice(NAMES)}-{number:03d}"


def _readme(world: World) -> None:
    world.write("README.md", "Runs are in runs/, logs in logs/. Ask before you delete anything.\n")


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Files and numbers


def _losses(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    world.write(f"runs/{run}/metrics.csv", curves(dice, dice.randint(4, 12)))
    return {"run": run}


def curves(dice: random.Random, epochs: int) -> str:
    """Return losses as they are: that of training keeps falling, that of validation turns up again at some epoch."""
    lines = ["epoch,train_loss,val_loss"]
    train = dice.uniform(1.8, 2.2)
    val = train * dice.uniform(1.02, 1.1)
    turn = dice.randint(2, epochs)
    for epoch in range(1, epochs + 1):
        train *= dice.uniform(0.75, 0.97)
        val *= dice.uniform(0.75, 0.97) if epoch <= turn else dice.uniform(1.02, 1.12)
        lines.append(f"{epoch},{train:.4f},{val:.4f}")
    return "\n".join(lines) + "\n"


def _best_epoch(agent: Agent, run: str) -> Any:
    rows = _table(agent.use("files.read_text", path=f"runs/{run}/metrics.csv"))
    best = min(rows, key=lambda row: float(row["val_loss"]))
    answer = {"epoch": int(best["epoch"]), "val_loss": float(best["val_loss"])}
    agent.think(f"which of {len(rows)} epochs is best?", answer)
    return answer


def _columns(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    path = f"exports/{run_of(dice, number)}.csv"
    lines = ["step,loss,grad_norm,lr"]
    lines += [
        f"{step},{dice.uniform(0.1, 3):.3f},{dice.uniform(0, 9):.2f},{dice.choice([0.1, 0.01, 0.001])}"
        for step in range(1, dice.randint(6, 15))
    ]
    world.write(path, "\n".join(lines) + "\n")
    return {"column": dice.choice(["loss", "grad_norm", "lr"]), "path": path}


def _summarise(agent: Agent, column: str, path: str) -> Any:
    values = [float(row[column]) for row in _table(agent.use("files.read_text", path=path))]
    answer = {"count": len(values), "mean": round(sum(values) / len(values), 4), "min": min(values), "max": max(values)}
    agent.think(f"summarise {values}", answer)
    return answer


def _samples(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    path = f"samples/{run_of(dice, number)}.csv"
    losses = dice.sample(range(100, 9999), dice.randint(8, 16))
    lines = ["id,loss", *(f"s{dice.randint(1000, 9999)},{loss / 1000}" for loss in losses)]
    world.write(path, "\n".join(lines) + "\n")
    return {"k": dice.randint(2, 6), "path": path}


def _hardest(agent: Agent, k: int, path: str) -> Any:
    rows = _table(agent.use("files.read_text", path=path))
    answer = [row["id"] for row in sorted(rows, key=lambda row: -float(row["loss"]))[:k]]
    agent.think(f"which {k} samples have the highest loss?", answer)
    return answer


# Text


def _log(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    name = run_of(dice, number)
    lines = []
    for second in range(dice.randint(8, 25)):
        level = dice.choices(["INFO", "WARNING", "ERROR", "DEBUG"], [6, 2, 2, 1])[0]
        said = dice.choice(["loader stalled", "loss is NaN", "saved checkpoint", "step done", "retrying shard"])
        lines.append(f"2026-03-{1 + number % 27:02d}T10:00:{second:02d} {level} {said}")
    world.write(f"logs/{name}.log", "\n".join(lines) + "\n")
    return {"name": name}


def _levels(agent: Agent, name: str) -> Any:
    text = agent.use("files.read_text", path=f"logs/{name}.log")
    counts: dict[str, int] = {}
    for line in text.splitlines():
        level = line.split(" ")[1]
        counts[level] = counts.get(level, 0) + 1
    agent.think("count the lines of each level", counts)
    return counts


def _log_word(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    params = _log(world, dice, number)
    return {"path": f"logs/{params['name']}.log", "word": dice.choice(["NaN", "stalled", "checkpoint", "retrying"])}


def _mentions(agent: Agent, path: str, word: str) -> Any:
    text = agent.use("files.read_text", path=path)
    found = [line for line in text.splitlines() if word in line]
    agent.think(f"find {word}", len(found))
    return {"lines": len(found), "first": found[0] if found else None}


# Files that are written


def _checkpoints(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    for epoch in dice.sample(range(1, 60), dice.randint(2, 5)):
        world.write(f"runs/{run}/ckpt_{epoch}.pt", f"weights {dice.randbytes(12).hex()}")
    return {"run": run}


def _rename(agent: Agent, run: str) -> Any:
    renamed = []
    for name in agent.use("files.list_folder", path=f"runs/{run}"):
        epoch = name.removeprefix("ckpt_").removesuffix(".pt")
        target = f"epoch-{int(epoch):03d}.pt"
        data = agent.use("files.read_bytes", path=f"runs/{run}/{name}")
        agent.use("files.write_bytes", path=f"runs/{run}/{target}", data=data)
        agent.use("files.remove", path=f"runs/{run}/{name}")
        agent.think(f"what is {name} called now?", target)
        renamed.append(target)
    return renamed


def _configs(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    base = {"lr": dice.choice([0.1, 0.01]), "batch": dice.choice([16, 32, 64]), "seed": dice.randint(0, 99)}
    over: dict[str, Any] = {"lr": dice.choice([0.3, 0.003])}
    if dice.random() < 0.5:
        over["warmup"] = dice.randint(10, 500)
    if dice.random() < 0.5:
        over["batch"] = dice.choice([128, 256])
    base_path, over_path = f"configs/base-{number}.json", f"configs/override-{number}.json"
    world.write(base_path, json.dumps(base))
    world.write(over_path, json.dumps(over))
    return {"base": base_path, "override": over_path, "target": f"runs/{run}/config.json"} | _made(world, f"runs/{run}")


def _made(world: World, folder: str) -> dict[str, Any]:
    (world.folder / folder).mkdir(parents=True, exist_ok=True)
    return {}


def _merge(agent: Agent, base: str, override: str, target: str) -> Any:
    first, second = agent.each([("files.read_text", {"path": base}), ("files.read_text", {"path": override})])
    merged = json.loads(first) | json.loads(second)
    agent.think(f"merge {first} and {second}", merged)
    agent.use("files.write_text", path=target, text=json.dumps(merged, sort_keys=True))
    return {"written": target, "keys": len(merged)}


def _result(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    result = {"run": run, "epochs": dice.randint(3, 90), "accuracy": round(dice.uniform(0.5, 0.99), 3)}
    world.write(f"results/{run}.json", json.dumps(result | {"host": dice.choice(NAMES), "seed": dice.randint(0, 9)}))
    _made(world, "reports")
    return {"run": run, "author": dice.choice(["Ada", "Grace", "Edsger", "Barbara"])}


def _report(agent: Agent, run: str, author: str) -> Any:
    result = json.loads(agent.use("files.read_text", path=f"results/{run}.json"))
    percent = round(100 * result["accuracy"], 1)
    text = f"# Report on {run}\n\nAfter {result['epochs']} epochs the accuracy is {percent}%.\n\nWritten by {author}.\n"
    agent.think(f"write a report on {result}", text)
    agent.use("files.write_text", path=f"reports/{run}.md", text=text)
    return f"reports/{run}.md"


def _readings(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    name = run_of(dice, number)
    lines = ["gpu,celsius", *(f"gpu{card},{dice.randint(30, 95)}" for card in range(dice.randint(2, 8)))]
    world.write(f"heat/{name}.csv", "\n".join(lines) + "\n")
    return {"source": f"heat/{name}.csv", "target": f"heat/{name}-fahrenheit.csv"}


def _convert(agent: Agent, source: str, target: str) -> Any:
    rows = _table(agent.use("files.read_text", path=source))
    lines = ["gpu,fahrenheit", *(f"{row['gpu']},{int(row['celsius']) * 9 / 5 + 32}" for row in rows)]
    text = "\n".join(lines) + "\n"
    agent.think("convert to Fahrenheit", text)
    agent.use("files.write_text", path=target, text=text)
    return len(rows)


def _defaults(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    _made(world, f"runs/{run}")
    if dice.random() < 0.5:
        world.write(f"runs/{run}/config.json", json.dumps({"lr": dice.choice([0.1, 0.2])}))
    return {"run": run}


def _ensure(agent: Agent, run: str) -> Any:
    path = f"runs/{run}/config.json"
    if agent.use("files.exists", path=path):
        agent.think("is there a config?", "kept")
        return "kept"
    agent.think("is there a config?", "written")
    agent.use("files.write_text", path=path, text='{"lr": 0.01, "batch": 32}')
    return "written"


# Sizes


def _folder(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    folder = f"cache/{run_of(dice, number)}"
    for shard in range(dice.randint(2, 6)):
        world.write(f"{folder}/shard-{shard}.bin", "x" * dice.randint(200, 9000))
    return {"folder": folder}


def _usage(agent: Agent, folder: str) -> Any:
    names = agent.use("files.list_folder", path=folder)
    sizes = agent.each([("disk.size", {"path": f"{folder}/{name}"}) for name in names])
    answer = {"files": len(sizes), "kib": round(sum(sizes) / 1024, 2)}
    agent.think(f"add up {sizes}", answer)
    return answer


# HTTP on loopback


def _model_page(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    model = run_of(dice, number)
    world.site.pages[f"/models/{model}"] = {
        "name": model,
        "license": dice.choice(["apache-2.0", "mit", "cc-by-4.0"]),
        "size": {"parameters": dice.randint(10, 900) * 1_000_000, "bytes": dice.randint(10, 99) * 10**7},
        "downloads": dice.randint(0, 10**6),
        "tags": dice.sample(["text", "vision", "audio", "small", "large"], 2),
    }
    return {"model": model}


def _card(agent: Agent, model: str) -> Any:
    page = agent.use("http.get", path=f"/models/{model}")
    answer = {"license": page["license"], "millions": page["size"]["parameters"] // 1_000_000}
    agent.think(f"what matters in {page}?", answer)
    return answer


def _sweep(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    sweep = run_of(dice, number)
    ids = dice.sample(range(100, 999), dice.randint(2, 5))
    world.site.pages[f"/sweeps/{sweep}"] = {"owner": dice.choice(NAMES), "trials": ids}
    for trial in ids:
        page = {"trial": trial, "state": "done", "accuracy": round(dice.uniform(0.4, 0.99), 3)}
        world.site.pages[f"/sweeps/{sweep}/trials/{trial}"] = page
    return {"sweep": sweep}


def _sweep_mean(agent: Agent, sweep: str) -> Any:
    page = agent.use("http.get", path=f"/sweeps/{sweep}")
    trials = agent.each([("http.get", {"path": f"/sweeps/{sweep}/trials/{trial}"}) for trial in page["trials"]])
    found = [trial["accuracy"] for trial in trials]
    answer = {"trials": len(found), "best": max(found), "mean": round(sum(found) / len(found), 4)}
    agent.think(f"average {found}", answer)
    return answer


def _notice(agent: Agent, run: str, author: str) -> Any:
    result = json.loads(agent.use("files.read_text", path=f"results/{run}.json"))
    text = f"{run}: {result['accuracy']} after {result['epochs']} epochs"
    agent.think("say it in one line", text)
    agent.use("http.post", path="/notices", body={"text": text, "by": author, "run": run})
    return text


# SQL on the projections

RUNS = 24


def recorded_run(number: int) -> str:
    """Return the name of one of the runs that are in the log."""
    return f"{NAMES[number % len(NAMES)]}{number}"


def _two_runs(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    first, second = dice.sample(range(RUNS), 2)
    return {"first": recorded_run(first), "second": recorded_run(second)}


def _compare(agent: Agent, first: str, second: str) -> Any:
    question = "SELECT min(value) AS loss FROM metrics WHERE run = '{}' AND name = 'loss'"
    one, other = agent.each([("sql.query", {"query": question.format(run)}) for run in (first, second)])
    a, b = one[0]["loss"], other[0]["loss"]
    answer = {"better": first if a < b else second, "difference": round(abs(a - b), 6)}
    agent.think(f"{a} against {b}", answer)
    return answer


def _spikes(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    return {"limit": round(dice.uniform(1.0, 2.4), 2), "run": recorded_run(dice.randrange(RUNS))}


def _steps_above(agent: Agent, limit: float, run: str) -> Any:
    rows = agent.use(
        "sql.query", query=f"SELECT step, value FROM metrics WHERE run = '{run}' AND name = 'loss' ORDER BY step"
    )
    answer = [row["step"] for row in rows if row["value"] > limit]
    agent.think(f"which steps are above {limit}?", answer)
    return answer


# Dates and arithmetic


def _job(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    _made(world, "calendar")
    start = date(2026, 1, 1) + timedelta(days=dice.randint(0, 700))
    return {"start": start.isoformat(), "days": dice.randint(3, 60), "job": run_of(dice, number)}


def _schedule(agent: Agent, start: str, days: int, job: str) -> Any:
    end = (date.fromisoformat(start) + timedelta(days=days)).isoformat()
    agent.think(f"{days} days after {start}", end)
    agent.use("files.append_text", path=f"calendar/{job}.txt", text=f"{start} {job} begins\n{end} {job} ends\n")
    return {"end": end}


def _decayed(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    _readme(world)
    run = run_of(dice, number)
    config = {"lr": dice.choice([0.5, 0.1, 0.03]), "warmup": dice.choice([100, 200, 500]), "total": 5000}
    world.write(f"runs/{run}/schedule.json", json.dumps(config))
    return {"run": run, "step": dice.choice([dice.randint(1, 90), dice.randint(600, 4000)])}


def _rate(agent: Agent, run: str, step: int) -> Any:
    config = json.loads(agent.use("files.read_text", path=f"runs/{run}/schedule.json"))
    rate = config["lr"] * step / config["warmup"] if step < config["warmup"] else config["lr"]
    answer = round(rate, 6)
    agent.think(f"the rate at {step} of {config}", answer)
    return answer


FAMILIES = (
    TaskFamily(name="best_epoch", goal="Which epoch of run {run} has the lowest validation loss?",
               prepare=_losses, solve=_best_epoch, strays=(README, LOOK)),
    TaskFamily(name="summarise_column", goal="Summarise the column {column} of {path}",
               prepare=_columns, solve=_summarise, strays=(README, LOOK)),
    TaskFamily(name="hardest_samples", goal="Which {k} samples of {path} have the highest loss?",
               prepare=_samples, solve=_hardest, strays=(README,)),
    TaskFamily(name="levels_of_log", goal="Count the lines of the log of {name} by level",
               prepare=_log, solve=_levels, strays=(LOOK, README)),
    TaskFamily(name="mentions", goal="How many lines of {path} mention {word}, and which is the first?",
               prepare=_log_word, solve=_mentions, strays=(README,)),
    TaskFamily(name="rename_checkpoints", goal="Rename the checkpoints of {run} to epoch and three digits",
               prepare=_checkpoints, solve=_rename, strays=(README,)),
    TaskFamily(name="merge_configs", goal="Merge {override} over {base} into {target}",
               prepare=_configs, solve=_merge, strays=(README,)),
    TaskFamily(name="write_report", goal="Write the report on {run}, signed {author}",
               prepare=_result, solve=_report, strays=(README, LOOK)),
    TaskFamily(name="convert_heat", goal="Convert the temperatures of {source} to Fahrenheit in {target}",
               prepare=_readings, solve=_convert, strays=(README,)),
    TaskFamily(name="ensure_config", goal="See that {run} has a config, and write the default if it has none",
               prepare=_defaults, solve=_ensure, strays=(README,)),
    TaskFamily(name="disk_usage", goal="How many files are in {folder}, and how many KiB do they take?",
               prepare=_folder, solve=_usage, strays=(README,)),
    TaskFamily(name="model_card", goal="What is the license of {model}, and how many million parameters has it?",
               prepare=_model_page, solve=_card, strays=(README,)),
    TaskFamily(name="sweep_mean", goal="What is the mean and the best accuracy of sweep {sweep}?",
               prepare=_sweep, solve=_sweep_mean, strays=(README,)),
    TaskFamily(name="post_notice", goal="Post the result of {run} in the name of {author}",
               prepare=_result, solve=_notice, strays=(README,)),
    TaskFamily(name="compare_runs", goal="Which of {first} and {second} reached the lower loss, and by how much?",
               prepare=_two_runs, solve=_compare, strays=(README,), sql=True),
    TaskFamily(name="steps_above", goal="In which steps of {run} was the loss above {limit}?",
               prepare=_spikes, solve=_steps_above, strays=(README,), sql=True),
    TaskFamily(name="schedule_job", goal="Schedule {job} for {days} days from {start}",
               prepare=_job, solve=_schedule, strays=(README,)),
    TaskFamily(name="rate_at_step", goal="What is the learning rate of {run} at step {step}?",
               prepare=_decayed, solve=_rate, strays=(README,)),
)  # fmt: skip
