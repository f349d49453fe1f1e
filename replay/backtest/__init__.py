"""Another policy over recorded runs, with side effects off: where it would have decided otherwise, and what that suggests.

Every observation is made anew from the events of its run and held against the hash in the log; the policy is asked; its
answer is held against the recorded one. Nothing is published and no network is touched. The recorded world goes on as
it did: each decision is compared in the state that the log's own policy had brought about.
"""

from .again import Choice, Moment, Rerun, again
from .backtest import Backtest, Difference, Examined, Group, Score, Skipped, backtest, compare, described, examine
from .evidence import Evidence, Experience, Host, experiences_of
from .interval import Estimate, estimate
from .recorded import Recorded, recorded_runs
from .shown import as_json, lines

__all__ = [
    "Backtest",
    "Choice",
    "Difference",
    "Estimate",
    "Evidence",
    "Examined",
    "Experience",
    "Group",
    "Host",
    "Moment",
    "Recorded",
    "Rerun",
    "Score",
    "Skipped",
    "again",
    "as_json",
    "backtest",
    "compare",
    "described",
    "estimate",
    "examine",
    "experiences_of",
    "lines",
    "recorded_runs",
]
