"""The growth experiment: arms that share splits, weights and batch order, judged once, the table read from the log.

    python benchmarks/adaptation/run.py [--seeds 20] [--workers 2] [--arms none bandit ...] [--hosts digits wine ...]
    python benchmarks/adaptation/run.py --report     # only read what the log holds

Each arm and seed is a run of its own in the log under --home. What is there already is not run again, so that the
command can be stopped and begun anew. Policies are trained first, on splits that no arm is judged on.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import reading
import table
from arms import ARMS, ELSEWHERE, HOME, ON_DIGITS, Known, Topology, arm_of, growing, with_topology
from hosts import HOSTS
from judged import Judged
from teaching import EXPERIENCES, EXPLORE, FIRST, Taught, teach
from training import judge, train

import morphogen
from morphogen.bus import broker
from morphogen.bus.settings import Settings

DEFAULT_HOME = Path(tempfile.gettempdir()) / "morphogen-adaptation"
BEGINS, ENDS = "<!-- measured -->", "<!-- /measured -->"
KINDS = {"bandit": "bandit", "gnn-ppo": "gnn-ppo", "bandit-own": "bandit", "gnn-own": "gnn-ppo"}


class Job(NamedTuple):
    """One run that is still to be made."""

    arm: str
    host: str
    seed: int
    setting: str
    checkpoints: dict[str, str]
    grown: Topology | None


def run_name(host: str, arm: str, seed: int) -> str:
    """Return what a run is called in the log."""
    return f"{host}-{arm}-{seed:03d}"


def perform(home: Path, job: Job) -> Judged:
    """Make one run, in a worker process."""
    arm, host = arm_of(job.arm, HOSTS[job.host])
    known = Known(checkpoints=job.checkpoints)
    config = {"arm": job.arm, "host": job.host, "seed": job.seed, "setting": job.setting, "epochs": host.epochs}
    name, settings = run_name(job.host, job.arm, job.seed), Settings.from_environ(home=home)
    with morphogen.record(name, config=config, settings=settings) as run:
        begin, model = None, None
        if arm.policy is not None:
            policy, menu = arm.policy(host, job.seed, known), arm.menu(host, known)
            begin = growing(policy, host, job.seed, menu=menu, limits=arm.limits, label=job.arm)
        elif job.grown is not None:
            model = with_topology(host, job.seed, job.grown)
        done = train(host, job.seed, model=model, run=run, begin=begin)
        return judge(host, job.seed, job.arm, job.setting, done, run)


def prepare() -> None:
    """Make a worker quiet and single-threaded."""
    import torch

    torch.set_num_threads(1)


class Experiment:
    """What there is to do, in which order, and who does it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.home: Path = options.home
        self.settings = Settings.from_environ(home=options.home)
        self.began = time.monotonic()

    def everything(self) -> None:
        """Teach, run, and say how long each arm took."""
        if self.options.workers <= 1:
            prepare()
            self._everything(None)
        else:
            context = get_context("spawn")
            with ProcessPoolExecutor(self.options.workers, mp_context=context, initializer=prepare) as pool:
                self._everything(pool)

    def _everything(self, pool: ProcessPoolExecutor | None) -> None:
        lessons = list(self._lessons())
        for _ in self._each(pool, [(teach, (self.settings, *lesson)) for lesson in lessons], "taught"):
            pass
        taught = self.taught()
        for after in (False, True):
            jobs = [job for job in self._jobs(taught) if (ARMS[job.arm].after is not None) == after]
            for judged in self._each(pool, [(perform, (self.home, job)) for job in jobs], "run"):
                self._say(
                    f"{run_name(judged.host, judged.arm, judged.seed)}  {judged.test_accuracy:7.2%}  {judged.seconds:6.1f} s"
                )

    def taught(self) -> dict[tuple[str, str], Taught]:
        """Return the newest training of each policy, by kind and host, whose checkpoint is still there."""
        import msgspec

        sql = "SELECT body::JSON::VARCHAR AS body FROM events WHERE type = 'experiment.taught' ORDER BY seq, idx"
        found = [msgspec.json.decode(row["body"], type=Taught) for row in reading.asked(self.settings, sql)]
        current = self._teaching()
        return {
            (one.policy, one.host): one for one in found if one.setting == current and Path(one.checkpoint).is_file()
        }

    def _teaching(self) -> str:
        """Return a hash of what a training depends on beside the code."""
        import hashlib

        from arms import CONFIG, LAST_CALL, LIMITS, MENU, REWARD

        told = [MENU, LIMITS, CONFIG, REWARD, LAST_CALL, self.options.episodes, FIRST, EXPLORE, EXPERIENCES]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def _needed(self) -> set[tuple[str, str]]:
        """Return (kind, host) of each policy that the chosen arms are judged with."""
        return {
            (KINDS[need], host if need.endswith("-own") else HOME)
            for host in self.options.hosts
            for arm in self._arms(host)
            for need in ARMS[arm].needs
        }

    def _lessons(self) -> Iterator[tuple[str, str, str, int, Path]]:
        done = self.taught()
        for kind, host in sorted(self._needed() - done.keys()):
            yield kind, host, self._teaching(), self.options.episodes, self.home / "checkpoints"

    def _arms(self, host: str) -> list[str]:
        usual = ON_DIGITS if host == HOME else ELSEWHERE
        return [arm for arm in usual if not self.options.arms or arm in self.options.arms]

    def _jobs(self, taught: dict[tuple[str, str], Taught]) -> Iterator[Job]:
        done = reading.judged_runs(self.settings)
        for host_name in self.options.hosts:
            checkpoints = {
                need: one
                for need, kind in KINDS.items()
                if (one := taught.get((kind, host_name if need.endswith("-own") else HOME))) is not None
            }
            known = Known(
                checkpoints={need: one.checkpoint for need, one in checkpoints.items()},
                versions={need: one.policy_version for need, one in checkpoints.items()},
            )
            for arm_name in self._arms(host_name):
                arm, host = arm_of(arm_name, HOSTS[host_name])
                setting = arm.setting(host, known)
                grown = reading.topologies(self.settings, arm.after, host_name) if arm.after is not None else {}
                for seed in range(self.options.first, self.options.first + self.options.seeds):
                    before = done.get(run_name(host_name, arm_name, seed))
                    if (before is not None and before.setting == setting) or (
                        arm.after is not None and seed not in grown
                    ):
                        continue
                    yield Job(arm_name, host_name, seed, setting, dict(known.checkpoints), grown.get(seed))

    def _each(
        self, pool: ProcessPoolExecutor | None, calls: list[tuple[Callable[..., Any], tuple[Any, ...]]], what: str
    ) -> Iterator[Any]:
        """Yield what each call returns, as it comes; what fails is said, and the others go on."""
        if calls:
            self._say(f"{len(calls)} to be {what}")
        if pool is None:
            for call, arguments in calls:
                yield call(*arguments)
            return
        waiting: list[Future[Any]] = [pool.submit(call, *arguments) for call, arguments in calls]
        for future in as_completed(waiting):
            error = future.exception()
            if error is not None:
                self._say(f"FAILED: {type(error).__name__}: {error}")
                continue
            yield future.result()

    def _say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:7.0f} s] {line}", flush=True)


def report(settings: Settings, seeds: range) -> dict[str, Any]:
    """Read everything back from the log, print the tables, and return the figures."""
    runs = {name: one for name, one in reading.judged_runs(settings).items() if one.seed in seeds}
    growth: dict[str, dict[str, Any]] = {}
    for sql in (reading.GROWTH, reading.DECISIONS, reading.DANGER):
        for name, figures in reading.by_run(settings, sql).items():
            growth.setdefault(name, {}).update(figures)
    rows = table.rows_of(runs, growth, ARMS)
    experiences = {row["policy"]: int(row["experiences"]) for row in reading.asked(settings, reading.EXPERIENCES)}
    beside = table.against(runs.values())
    print(f"\n{table.markdown(rows)}\n\n{beside}\n")
    print(f"{'arm':14}{'runs':>6}{'median s a run':>16}")
    for row in rows:
        print(f"{row.host[:6] + ' ' + row.arm:14.22}{row.seeds:>6}{row.seconds:>12.1f}")
    reached = [*table.checks(rows, experiences), one_setting(runs)]
    print()
    for what, held, figure in reached:
        print(f"{'unknown' if held is None else 'yes' if held else 'NO':8} {what}: {figure}")
    choices = [row for row in reading.asked(settings, reading.CHOICES) if row["run"] in runs]
    judged = "\n".join(
        f"| {what} | {'not measured' if held is None else 'yes' if held else '**no**'} | {figure} |"
        for what, held, figure in reached
    )
    return {
        "text": f"{table.markdown(rows)}\n\n{beside}\n\n| asked for | reached | |\n|---|---|---|\n{judged}",
        "runs": {name: _plain(one) for name, one in sorted(runs.items())},
        "growth": {name: growth[name] for name in sorted(runs) if name in growth},
        "choices": choices,
        "experiences": experiences,
        "checks": [{"asked": what, "reached": held, "figure": figure} for what, held, figure in reached],
    }


def one_setting(runs: dict[str, Judged]) -> tuple[str, bool | None, str]:
    """Return the check that no arm of the table mixes runs of different settings."""
    settings: dict[tuple[str, str], set[str]] = {}
    for one in runs.values():
        settings.setdefault((one.host, one.arm), set()).add(one.setting)
    mixed = [f"{host} {arm}" for (host, arm), found in settings.items() if len(found) > 1]
    return "all runs of an arm have one setting", not mixed, ", ".join(mixed) or f"{len(settings)} arms"


def _plain(judged: Judged) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(judged)
    return plain


def main() -> None:
    """Run what is not in the log yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help=f"folder of the log (default {DEFAULT_HOME})")
    parser.add_argument("--seeds", type=int, default=20, help="paired seeds an arm")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--hosts", nargs="+", choices=list(HOSTS), default=[HOME])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[])
    parser.add_argument("--episodes", type=int, default=60, help="runs that a policy is trained on")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--report", action="store_true", help="only read the log")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(options)
    broker.ensure(experiment.settings)
    try:
        if not options.report:
            experiment.everything()
        figures = report(experiment.settings, range(options.first, options.first + options.seeds))
    finally:
        broker.down(experiment.settings)
    if options.page:
        before, _, rest = options.page.read_text().partition(BEGINS)
        _, _, after = rest.partition(ENDS)
        options.page.write_text(f"{before}{BEGINS}\n\n{figures.pop('text')}\n\n{ENDS}{after}")
    figures.pop("text", None)
    if options.json:
        told = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        options.json.write_text(
            json.dumps({"options": told | {"json": None, "home": None, "page": None}} | figures, separators=(",", ":"))
            + "\n"
        )


if __name__ == "__main__":
    main()
