"""What may be written in an engineering loop beside its parameters, and what each setting means."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["word", "count", "number", "seconds", "flag", "map", "text", "expression", "command"]


@dataclass(frozen=True)
class Setting:
    """A key of an engineering loop or of its `measure`: its kind, its default, and one line on what it does."""

    kind: Kind
    default: Any
    says: str
    choices: tuple[str, ...] = ()
    least: float = 0
    most: float = float("inf")


SETTINGS: dict[str, Setting] = {
    "cmd": Setting("command", None, "Program that measures one configuration; `{{P}}` is a parameter."),
    "tool": Setting(
        "text", None, "Python function that measures: `module:function`, or the name of an installed tool."
    ),
    "arguments": Setting("map", {}, "Further arguments of the tool, the same for every configuration."),
    "cwd": Setting("text", None, "Folder of the command, inside the workspace."),
    "env": Setting("map", {}, "Environment variables to add for the command."),
    "metric": Setting("text", None, "What is measured: `Case.field`, or a field that only one case has."),
    "objective": Setting("word", "maximize", "Which way is better.", ("maximize", "minimize")),
    "sampler": Setting("word", "grid", "How configurations are chosen.", ("grid", "random", "tpe")),
    "seed": Setting("count", 0, "Seed of all chance."),
    "budget": Setting("count", None, "Most configurations to measure.", least=1),
    "time": Setting("seconds", None, "Begin no trial after so long, counted over all resumes."),
    "repeats": Setting(
        "count", 1, "Measurements of one configuration; its value is their median.", least=1, most=10_000
    ),
    "warmup": Setting("count", 0, "Measurements before those, thrown away."),
    "workers": Setting("count", 1, "Configurations measured at the same time.", least=1),
    "timeout": Setting("seconds", 300.0, "Longest single measurement; longer is a failure."),
    "patience": Setting("count", None, "Stop after so many trials without a new best.", least=1),
    "target": Setting("number", None, "Stop when the best reaches this value."),
    "startup": Setting("count", 10, "Trials that tpe chooses at random before it learns.", least=1),
    "prune": Setting(
        "number", None, "Give a trial up when all its repeats so far are worse than the best by this share."
    ),
    "baseline": Setting("map", None, "Configuration to compare with; it is measured first."),
    "interleave": Setting("flag", False, "Measure the baseline in turn with every repeat, and compare by the ratios."),
    "confirm": Setting("count", 0, "Measurements of best and baseline in turn, when the search is over.", most=10_000),
    "cost": Setting("expression", None, "What a configuration costs; the cheapest wins among equals."),
    "constraint": Setting("expression", None, "What must hold of the parameters for a configuration to be measured."),
    "narrow": Setting("flag", False, "Measure only values that the rules' `parameter NAME: [..]` name."),
    "alpha": Setting("number", 0.05, "Chance of calling noise better that is accepted in one comparison."),
    "description": Setting("text", None, "For people."),
}
