"""Real networks that grow, in a real log: it says again, to the bit, where every slot stood and why."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import morphogen
from morphogen.bus import broker as brokers
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.consumers.executor import fold_all
from morphogen.consumers.policy import Policy, load_policy, names
from morphogen.consumers.policy.serve import PolicyServer
from morphogen.consumers.policy.timeline import timeline
from morphogen.replay.backtest import Backtest, Recorded, backtest, recorded_runs
from morphogen.replay.report import gather, growth_charts
from morphogen.replay.verify import verify

torch = pytest.importorskip("torch")

PLAN = [[2, "0", "mlp16"], [6, "2", "norm"]]
BUDGET = {"cooldown": 1, "min_training": 1, "earliest": 1, "max_active": 2, "calm": 0}


def made(name: str, seed: int) -> Policy:
    return load_policy(name, seed=seed, **({"plan": PLAN} if name == "fixed" else {}))


def train(name: str, policy: Any, *, seed: int = 3, epochs: int = 14, wait: float = 0.0, **options: Any) -> Any:
    """Train a small network with a bottleneck on the sign of a product, recorded and watched; return its grower."""
    from torch import nn
    from torch.nn.functional import cross_entropy

    from morphogen.consumers.adaptation import grow

    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(120, 8, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def evaluate(model: nn.Module) -> tuple[float, float]:
        out = model(x)
        return cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()

    with morphogen.record(name) as run:
        run.watch(model, optimizer, every=1)
        grower = grow(
            run, model, optimizer, policy=policy, evaluate=evaluate, seed=seed, example=x[:2], budget=BUDGET,
            config={"plateau_window": 1, "plateau_threshold": 0.5, "remote_wait": wait}, **options,
        )  # fmt: skip
        for _ in range(epochs):
            for part in range(0, 120, 40):
                optimizer.zero_grad()
                cross_entropy(model(x[part : part + 40]), y[part : part + 40]).backward()
                optimizer.step()
            grower.epoch()
        grower.finish(test_accuracy=evaluate(model)[1])
    return grower


def over(settings: Settings, work: Callable[[Any], Any]) -> Any:
    """Do some work over a connection."""

    async def main() -> Any:
        conn = await connect(settings, name="test")
        try:
            return await work(conn)
        finally:
            await conn.close()

    return asyncio.run(main())


def gone_over(settings: Settings, policy: Any, *patterns: str, **options: Any) -> Backtest:
    found: Backtest = over(settings, lambda conn: backtest(conn, settings, policy, patterns, options=options))
    return found


def read(settings: Settings, run: str) -> list[Recorded]:
    async def work(conn: Any) -> list[Recorded]:
        return [one async for one in recorded_runs(conn, settings, [run])]

    found: list[Recorded] = over(settings, work)
    return found


def living(grower: Any) -> Iterator[tuple[str, str, str | None, float]]:
    """Yield how every slot of the model itself stands."""
    for name, slot in grower.slots.items():
        yield name, str(slot.stage), slot.seed_id if slot.seed is not None else None, float(slot.alpha)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dict[str, Any]]]:
    """A log with a run of each built-in policy, by its name, and the growers, which hold the networks as they became."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORPHOGEN_HOME", str(tmp_path_factory.mktemp("grown")))
        settings = Settings.from_environ()
        growers = {name: train(name, made(name, 3), label="arm") for name in names()}
    yield settings, growers
    brokers.down(settings)


@pytest.mark.parametrize("name", names())
def test_the_log_rebuilds_every_slot_and_every_decision_of_a_policy_to_the_bit(name: str, grown: Any) -> None:
    settings, growers = grown

    found = gone_over(settings, name, name, **({"plan": PLAN} if name == "fixed" else {}))
    assert found.decisions == 14
    assert found.exact
    assert found.differences == []

    (recorded,) = read(settings, name)
    states = fold_all(told.event for told in timeline(recorded.told))
    sql = "SELECT slot, stage, seed, alpha FROM slots WHERE run = $run ORDER BY slot"
    rows = morphogen.query(sql, params={"run": name}, wait=True, settings=settings).rows()
    alive = sorted(living(growers[name]))
    assert [(name, one.stage, one.seed, one.alpha) for name, one in sorted(states.items())] == alive
    assert [tuple(row) for row in rows] == alive
    if name in {"fixed", "heuristic", "bandit"}:
        assert any(stage != "dormant" for _, stage, _, _ in alive)


def test_sql_says_which_decisions_helped_by_how_much_and_why(grown: Any) -> None:
    settings, growers = grown

    def ask(sql: str, **params: Any) -> list[dict[str, Any]]:
        return list(morphogen.query(sql, params=params or None, wait=True, settings=settings))

    rows = ask("SELECT * FROM decisions WHERE op = 'germinate' AND run = 'heuristic'")
    assert rows
    assert all(row["executed"] and row["reason"] and row["blueprint"] for row in rows)
    measured = [row for row in rows if row["contribution"] is not None]
    assert measured
    assert all(row["helped"] == (row["contribution"] > 0) and row["reward"] is not None for row in measured)
    (run,) = ask("SELECT *, measured.test_accuracy::DOUBLE AS accuracy FROM adaptations WHERE run = 'heuristic'")
    assert (run["params_grown"], run["label"], run["status"]) == (growers["heuristic"].params_grown, "arm", "finished")
    assert 0 <= run["accuracy"] <= 1
    assert {row["policy"]: row["decisions"] for row in ask("SELECT * FROM policy_state")} == dict.fromkeys(names(), 14)

    story = gather("heuristic", lambda sql, params: ask(sql, **params))
    assert [chart.title for chart in growth_charts(story)][:3] == [
        "Loss, with the decisions",
        "Validation accuracy",
        "Parameters",
    ]


def test_the_tables_of_grown_runs_are_what_the_log_says(grown: Any) -> None:
    settings, _ = grown
    morphogen.query("SELECT count(*) FROM slots", wait=True, settings=settings)

    report = over(settings, lambda conn: verify(conn, settings))

    assert report.ok, list(report.lines())
    assert {"slot_changes", "outcomes", "observations", "epochs"} <= {table.table for table in report.tables}


def test_another_policy_over_real_runs_differs_and_knows_what_it_does_not_know(grown: Any) -> None:
    settings, _ = grown

    found = gone_over(settings, "heuristic", "heuristic", "none")

    by_run = {score.run: score for score in found.scores}
    assert by_run["heuristic"].differences == 0
    assert by_run["none"].differences > 0
    assert by_run["none"].rebuilt == by_run["none"].decisions
    assert all(
        one.suggests is not None and not one.suggests.known for one in found.differences if one.moment.chosen.acts
    )


def test_decisions_from_elsewhere_are_rebuilt_and_joined_to_what_they_did(settings: Settings) -> None:
    morphogen.query("SELECT 1")  # the broker is up
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        conn = await connect(settings, name="server")
        server = PolicyServer(conn, lambda seed: load_policy("heuristic", seed=seed))
        task = asyncio.create_task(server.run())
        await server.ready.wait()
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await conn.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        train("far", "remote", epochs=6, wait=0.7)
    finally:
        over.set()
        thread.join()

    rows = morphogen.query("SELECT policy, attempt, executed FROM decisions WHERE op = 'germinate'", wait=True).rows()
    assert rows
    assert set(rows) == {("heuristic", 1, True)}
    found = gone_over(settings, "heuristic")
    assert found.decisions >= 3
    assert found.exact
    assert found.differences == []
