"""How growth goes about in one run. What it may grow, and when, is the budget: `policy.Limits`."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from morphogen.consumers.executor import ExecutorConfig

from .errors import GrowthError


class GrowthConfig(ExecutorConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of growth, those of the executor among them. Times are epochs where nothing else is said."""

    plateau_window: int = 5  # the mean loss of so many epochs against that of as many before
    plateau_threshold: float = 0.02  # a fall by less than this share is a plateau
    dry_run: bool = False  # try what is to grow on a copy of the model first, with `evaluate`
    dry_run_bound: float = 3.0  # a copy whose loss is more than so many times the model's is not followed
    remote_wait: float = 0.0  # seconds that an epoch's end waits for a command, with policy="remote"
    finish_at_end: bool = True  # judge what still grows when the run ends
    most_failures: int = 10  # failures of growth itself before it is switched off for the rest of the run

    def __post_init__(self) -> None:
        ExecutorConfig.__post_init__(self)
        if self.plateau_window < 1:
            raise ValueError("plateau_window is 1 or more, not 0")


_T = TypeVar("_T")


def converted(value: _T | Mapping[str, Any] | None, kind: type[_T], what: str) -> _T:
    """Return settings that were given as such, as a mapping of names, or not at all. Raises GrowthError."""
    if value is None:
        return kind()
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise GrowthError(f"{what} is a {kind.__name__} or a mapping, not a {type(value).__name__}")
    unknown = [str(name) for name in value if name not in kind.__struct_fields__]  # type: ignore[attr-defined]
    if unknown:
        known = ", ".join(kind.__struct_fields__)  # type: ignore[attr-defined]
        raise GrowthError(f"{what} has no {unknown[0]!r}: it has {known}")
    try:
        return msgspec.convert(dict(value), kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise GrowthError(f"{what} does not fit: {error}") from error
