"""Tasks whose recorded past looks simpler than it is: whoever makes a tool of it without doubt makes a wrong one.

`why` says what such a tool gets wrong, `in_use` makes tasks on which it shows. A tool that steps back there (a guard that is
missed, an error) is no wrong tool; one that answers otherwise than the agent does is.
"""

import csv
import io
import json
import random
from datetime import date, timedelta
from typing import Any

from agent import Agent, TaskFamily
from honest import curves, run_of
from world import World

TEAMS = {"atlas": "storage", "borea": "training", "cirrus": "training", "dorado": "serving", "eos": "storage", "fenix": "serving"}  # fmt: skip
LATER = {"gaia": "training", "helios": "storage", "ixion": "serving", "janus": "training", "kepler": "storage", "luna": "serving"}  # fmt: skip


def today(world: World) -> date:
    """Return the day on which the agent works: the real one, or later in a world that has moved on."""
    return date.today() + timedelta(days=int(world.state.get("days_later", 0)))


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# A parameter that never varied


def _order(world: World, dice: random.Random, number: int, currency: str = "EUR") -> dict[str, Any]:
    world.write("rates.json", json.dumps({"EUR": 1.0, "USD": 1.17, "CHF": 0.93}))
    order = f"order-{number}"
    lines = ["item,euros", *(f"i{n},{dice.randint(1, 99)}" for n in range(dice.randint(2, 6)))]
    world.write(f"orders/{order}.csv", "\n".join(lines) + "\n")
    return {"order": order, "currency": currency}


def _dollars(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _order(world, dice, number, dice.choice(["USD", "CHF"]))


def _total(agent: Agent, order: str, currency: str) -> Any:
    euros = sum(int(row["euros"]) for row in _rows(agent.use("files.read_text", path=f"orders/{order}.csv")))
    if currency != "EUR":
        euros = round(euros * json.loads(agent.use("files.read_text", path="rates.json"))[currency], 2)
    agent.think("add up the order", euros)
    return {"total": euros, "currency": currency}


# Two parameters that were always equal


def _labelled(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    run = run_of(dice, number)
    world.write(f"runs/{run}/loss.txt", f"{dice.uniform(0.1, 2):.4f}\n")
    return {"run": run, "label": run}


def _labelled_otherwise(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _labelled(world, dice, number) | {"label": f"paper table {number}"}


def _under_label(agent: Agent, run: str, label: str) -> Any:
    loss = float(agent.use("files.read_text", path=f"runs/{run}/loss.txt"))
    agent.think("name the loss", label)
    return f"{label}: {loss}"


# A number that always was the length of the file


def _exactly(world: World, dice: random.Random, number: int, more: int = 0) -> dict[str, Any]:
    k, path = dice.randint(2, 9), f"queues/q{number}.txt"
    world.write(path, "".join(f"job-{dice.randint(1000, 9999)}\n" for _ in range(k + more)))
    return {"k": k, "path": path}


def _longer(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _exactly(world, dice, number, dice.randint(1, 6))


def _first(agent: Agent, k: int, path: str) -> Any:
    answer = agent.use("files.read_text", path=path).splitlines()[:k]
    agent.think(f"the first {k}", answer)
    return answer


# Two columns that always had their minimum in the same row


def _together(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    run, loss = run_of(dice, number), 2.0
    lines = ["epoch,train_loss,val_loss"]
    for epoch in range(1, dice.randint(5, 13)):
        loss = max(0.05, loss * dice.uniform(0.7, 1.15))
        lines.append(f"{epoch},{loss * 0.9:.4f},{loss:.4f}")
    world.write(f"runs/{run}/metrics.csv", "\n".join(lines) + "\n")
    return {"run": run}


def _apart(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    run = run_of(dice, number)
    text = curves(dice, 12)
    while min(_rows(text), key=_trained)["epoch"] == min(_rows(text), key=_validated)["epoch"]:
        text = curves(dice, 12)
    world.write(f"runs/{run}/metrics.csv", text)
    return {"run": run}


def _trained(row: dict[str, str]) -> float:
    return float(row["train_loss"])


def _validated(row: dict[str, str]) -> float:
    return float(row["val_loss"])


def _stop(agent: Agent, run: str) -> Any:
    rows = _rows(agent.use("files.read_text", path=f"runs/{run}/metrics.csv"))
    answer = int(min(rows, key=_validated)["epoch"])
    agent.think(f"where should {run} have stopped?", answer)
    return {"epoch": answer}


# What the agent remembers and no tool shows


def _change(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"change": f"change-{dice.randint(100, 999)}-{number}"}


def _reviewer(agent: Agent, change: str) -> Any:
    turn = agent.world.state["turn"] = int(agent.world.state.get("turn", 0)) + 1
    answer = ("ann", "bob", "eve")[turn % 3]
    agent.think(f"whose turn is it for {change}?", answer)
    return answer


def _hours(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"hours": dice.randint(1, 40)}


def _running_total(agent: Agent, hours: int) -> Any:
    total = agent.world.state["hours"] = int(agent.world.state.get("hours", 0)) + hours
    agent.think(f"and {hours} more", total)
    return {"total": total}


def _credits(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    world.state["price"] = 1.25 if number < 22 else 1.5
    return {"amount": 4 * dice.randint(1, 60)}


def _credits_later(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _credits(world, dice, number) | {"amount": 4 * dice.randint(1, 60)} | _set(world, "price", 1.75)


def _set(world: World, name: str, value: Any) -> dict[str, Any]:
    world.state[name] = value
    return {}


def _worth(agent: Agent, amount: int) -> Any:
    answer = amount * agent.world.state["price"]
    agent.think(f"{amount} credits at today's price", answer)
    return answer


def _service(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"service": dice.choice(sorted(TEAMS))}


def _new_service(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"service": dice.choice(sorted(LATER))}


def _owner(agent: Agent, service: str) -> Any:
    answer = (TEAMS | LATER)[service]
    agent.think(f"who owns {service}?", answer)
    return answer


# Time


def _deadline(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"deadline": (today(world) + timedelta(days=dice.randint(8, 300))).isoformat()}


def _deadline_next_week(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _set(world, "days_later", 7) | _deadline(world, dice, number)


def _days_left(agent: Agent, deadline: str) -> Any:
    answer = (date.fromisoformat(deadline) - today(agent.world)).days
    agent.think(f"days until {deadline}", answer)
    return answer


def _topic(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    (world.folder / "journal").mkdir(exist_ok=True)
    return {"topic": run_of(dice, number)}


def _topic_next_week(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _set(world, "days_later", 7) | _topic(world, dice, number)


def _note(agent: Agent, topic: str) -> Any:
    day = today(agent.world).isoformat()
    agent.use("files.write_text", path=f"journal/{topic}.md", text=f"# {topic}\n\nBegun on {day}.\n")
    agent.think(f"begin a note on {topic}", day)
    return f"{topic}, {day}"


# Chance


def _lines(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    path = f"data/d{number}.txt"
    world.write(path, "".join(f"row {n} {dice.randint(0, 99)}\n" for n in range(dice.randint(12, 20))))
    return {"k": dice.randint(2, 4), "path": path}


def _sample(agent: Agent, k: int, path: str) -> Any:
    answer = random.SystemRandom().sample(agent.use("files.read_text", path=path).splitlines(), k)
    agent.think(f"draw {k}", answer)
    return answer


# What the place decides


def _distance(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    world.state["units"] = "metric"
    return {"meters": dice.randint(1, 900)}


def _distance_in_feet(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _distance(world, dice, number) | _set(world, "units", "imperial")


def _written(agent: Agent, meters: int) -> Any:
    metric = agent.world.state["units"] == "metric"
    answer = f"{meters} m" if metric else f"{round(meters / 0.3048)} ft"
    agent.think(f"write {meters} m", answer)
    return answer


# A case that never came


def _pair(world: World, dice: random.Random, number: int, turned: bool = False) -> dict[str, Any]:
    first, second = f"a{number}", f"b{number}"
    low = dice.uniform(0.1, 1)
    losses = {first: low, second: low + dice.uniform(0.1, 1)}
    if turned:
        losses = {first: losses[second], second: losses[first]}
    for run, loss in losses.items():
        world.write(f"runs/{run}/loss.txt", f"{loss:.4f}\n")
    return {"first": first, "second": second}


def _turned(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return _pair(world, dice, number, turned=True)


def _better(agent: Agent, first: str, second: str) -> Any:
    one, other = agent.each([("files.read_text", {"path": f"runs/{run}/loss.txt"}) for run in (first, second)])
    answer = first if float(one) < float(other) else second
    agent.think("which is lower?", answer)
    return answer


def _gib(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"gib": 5 * dice.randint(4, 180)}


def _few_gib(world: World, dice: random.Random, number: int) -> dict[str, Any]:
    return {"gib": dice.randint(1, 10)}


def _cost(agent: Agent, gib: int) -> Any:
    answer = 0 if gib <= 10 else gib * 2
    agent.think(f"what do {gib} GiB cost?", answer)
    return {"cents": answer}


FAMILIES = (
    TaskFamily(name="frozen_currency", goal="What does {order} cost in {currency}?", prepare=_order, solve=_total,
               in_use=_dollars, why="the currency was always EUR, so the rates were never read"),
    TaskFamily(name="label_is_run", goal="Give the loss of {run} under the label {label}", prepare=_labelled,
               solve=_under_label, in_use=_labelled_otherwise, placeholders=True,
               why="run and label were always equal, so one stands for the other"),
    TaskFamily(name="k_is_all", goal="Give the first {k} jobs of {path}", prepare=_exactly, solve=_first, in_use=_longer,
               why="the file always had just k lines, so all of them were the first k"),
    TaskFamily(name="columns_agree", goal="At which epoch should {run} have stopped?", prepare=_together, solve=_stop,
               in_use=_apart, why="both losses always had their minimum in one epoch, so either column explains it"),
    TaskFamily(name="round_robin", goal="Who reviews {change}?", prepare=_change, solve=_reviewer, in_use=_change,
               why="reviewers take turns, and only the agent remembers whose it is"),
    TaskFamily(name="running_total", goal="Add {hours} hours and tell the total", prepare=_hours, solve=_running_total,
               in_use=_hours, why="the total is in the agent's memory"),
    TaskFamily(name="price_moved", goal="What are {amount} credits worth?", prepare=_credits, solve=_worth,
               in_use=_credits_later, why="the price is known to the agent, and moves"),
    TaskFamily(name="owner_from_memory", goal="Which team owns {service}?", prepare=_service, solve=_owner,
               in_use=_new_service, why="the agent knows the teams; six services were asked for, others will be"),
    TaskFamily(name="days_left", goal="How many days are left until {deadline}?", prepare=_deadline, solve=_days_left,
               in_use=_deadline_next_week, why="all was recorded on one day, so the day looks like a constant"),
    TaskFamily(name="dated_note", goal="Begin a note on {topic}", prepare=_topic, solve=_note, in_use=_topic_next_week,
               why="all was recorded on one day, and the day stands in the text"),
    TaskFamily(name="random_sample", goal="Draw {k} lines of {path}", prepare=_lines, solve=_sample, in_use=_lines,
               why="the answer is drawn by chance"),
    TaskFamily(name="units", goal="Write {meters} meters for the report", prepare=_distance, solve=_written,
               in_use=_distance_in_feet, environment={"units": "metric"}, environment_in_use={"units": "imperial"},
               why="the place decides about the unit"),
    TaskFamily(name="first_is_better", goal="Which of {first} and {second} has the lower loss?", prepare=_pair,
               solve=_better, in_use=_turned, why="the first always was the better one, so nothing need be compared"),
    TaskFamily(name="free_tier", goal="What do {gib} GiB cost in a month?", prepare=_gib, solve=_cost, in_use=_few_gib,
               why="the first 10 GiB are free, and nobody asked for so few"),
)  # fmt: skip
