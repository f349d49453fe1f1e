"""The table of the experiment, and whether it reaches what was asked for: from rows of the log, without looking elsewhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from arms import ARMS
from intervals import Interval, Paired, interval, paired
from judged import Judged

GROWN = (
    "germinations",
    "helped",
    "unmeasured",
    "unapproved",
    "dangers",
    "cut_unheard",
    "rollbacks",
    "fossilized",
    "pruned",
)


@dataclass(frozen=True)
class Row:
    """One arm of one host: accuracies in percent, parameters as means over seeds, growth as sums over seeds."""

    host: str
    arm: str
    seeds: int
    test: Interval
    over_none: Paired | None
    over_matched: Paired | None
    params_added: float
    growth: Mapping[str, int]
    seconds: float  # of one run, median
    equal_to_none: int  # seeds whose host weights, test loss and accuracy are those of none, bit for bit

    @property
    def positive_share(self) -> float | None:
        """Share of the executed germinations whose measured contribution was above zero; None without any."""
        done = self.growth["germinations"]
        return self.growth["helped"] / done if done else None


def rows_of(runs: Mapping[str, Judged], growth: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> list[Row]:
    """Return a row for each arm that has runs, in this order, the hosts one after the other."""
    order = list(order)
    found: list[Row] = []
    for host in dict.fromkeys(one.host for one in runs.values()):
        of = {
            arm: {one.seed: (name, one) for name, one in runs.items() if (one.host, one.arm) == (host, arm)}
            for arm in order
        }
        scores = {arm: {seed: 100 * one.test_accuracy for seed, (_, one) in made.items()} for arm, made in of.items()}
        found += [_row(host, arm, of, scores, growth) for arm in order if of[arm]]
    return found


def _row(
    host: str,
    arm: str,
    of: Mapping[str, Mapping[int, tuple[str, Judged]]],
    scores: Mapping[str, Mapping[int, float]],
    growth: Mapping[str, Mapping[str, Any]],
) -> Row:
    made = of[arm]
    judged = [one for _, one in made.values()]
    sums = {what: sum(int(growth.get(name, {}).get(what) or 0) for name, _ in made.values()) for what in GROWN}
    seconds = sorted(one.seconds for one in judged)
    alone = {seed: one for seed, (_, one) in of.get("none", {}).items()}
    return Row(
        host=host,
        arm=arm,
        seeds=len(made),
        test=interval(list(scores[arm].values())),
        over_none=None if arm == "none" else paired(scores[arm], scores.get("none", {})),
        over_matched=None if arm == "matched" else paired(scores[arm], scores.get("matched", {})),
        params_added=sum(one.params - one.host_params for one in judged) / len(judged),
        growth=sums,
        seconds=seconds[len(seconds) // 2],
        equal_to_none=sum(
            (one.host_weights, one.test_loss, one.test_accuracy)
            == (alone[one.seed].host_weights, alone[one.seed].test_loss, alone[one.seed].test_accuracy)
            for one in judged
            if one.seed in alone
        ),
    )


def markdown(rows: Iterable[Row]) -> str:
    """Return a table a host, ready for a page."""
    parts: list[str] = []
    host = None
    for row in rows:
        if row.host != host:
            host = row.host
            parts += [
                "", f"**{host}**", "",
                "| arm | seeds | test % | over none | over matched | params added | germinated, fossilized, pruned | helped |",
                "|---|---|---|---|---|---|---|---|",
            ]  # fmt: skip
        share = "" if row.positive_share is None else f"{row.positive_share:.0%}"
        life = row.growth
        lived = f"{life['germinations']}, {life['fossilized']}, {life['pruned']}" if life["germinations"] else ""
        parts.append(
            f"| {row.arm} | {row.seeds} | {row.test} | {row.over_none or ''} | {row.over_matched or ''} "
            f"| {row.params_added:.0f} | {lived} | {share} |"
        )
    return "\n".join(parts).lstrip("\n")


def against(runs: Iterable[Judged]) -> str:
    """Return a table of what a learned choice is worth beside a blind one and beside knowing the end, paired by seed."""
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for one in runs:
        scores.setdefault(one.host, {}).setdefault(one.arm, {})[one.seed] = 100 * one.test_accuracy
    lines = ["| host | | over size | over static |", "|---|---|---|---|"]
    for host, of in scores.items():
        for arm in ("bandit", "gnn-ppo"):
            found = [paired(of.get(arm, {}), of.get(other, {})) for other in ("size", "static")]
            if any(found):
                lines.append(f"| {host} | {arm} | {' | '.join(str(one or '') for one in found)} |")
    return "\n".join(lines)


def checks(rows: Iterable[Row], experiences: Mapping[str, int]) -> list[tuple[str, bool | None, str]]:
    """Return (what was asked, whether it is reached, the figure); None where the log does not hold what it takes."""
    of = {row.arm: row for row in rows if row.host == "digits"}
    found: list[tuple[str, Any, str]] = []
    for arm in ("bandit", "gnn-ppo"):
        row = of.get(arm)
        over = row.over_none if row else None
        found.append((f"{arm} ≥ +22 points over none", over and over.difference.mean >= 22, str(over)))
        ahead = row.over_matched if row else None
        clear = ahead and ahead.difference.low > 0
        found.append((f"{arm} over the parameter-matched random arm, interval clear of zero", clear, str(ahead)))
    if "bandit" in of and "gnn-ppo" in of:
        learned, counted = of["gnn-ppo"].test.mean, of["bandit"].test.mean
        found.append(("gnn-ppo at least equal to the bandit", learned >= counted, f"{learned:.2f} and {counted:.2f}"))
    seen = experiences.get("gnn-ppo")
    found.append(
        ("gnn-ppo trained with fewer than 1,000 experiences", None if seen is None else seen < 1000, str(seen))
    )
    sham = of.get("sham")
    told = None if sham is None else f"{sham.equal_to_none} of {sham.seeds}"
    found.append(("sham equals none, bit for bit", sham and sham.equal_to_none == sham.seeds, str(told)))
    chosen = [of[arm] for arm in ("heuristic", "bandit", "gnn-ppo") if arm in of]
    done = sum(row.growth["germinations"] for row in chosen)
    share = sum(row.growth["helped"] for row in chosen) / done if done else None
    shown = "None" if share is None else f"{share:.0%} of {done}"
    found.append(("≥ 70% of the policies' adaptations helped", share and share >= 0.7, shown))
    grown = [row for row in of.values() if row.growth["germinations"]]
    if grown:
        dangers = sum(row.growth["dangers"] + row.growth["unapproved"] for row in grown)
        every = sum(row.growth["germinations"] for row in grown)
        cut = sum(row.growth["cut_unheard"] for row in grown)
        told = f"{dangers} of {every}; {cut} seeds cut off before they had a say"
        found.append(("0 dangerous adaptations executed, in any arm", dangers == 0, told))
    return [(what, None if reached is None else bool(reached), figure) for what, reached, figure in found]


def legend() -> str:
    """Return what each arm does, a line each."""
    return "\n".join(f"- `{arm.name}`: {arm.about}" for arm in ARMS.values())
