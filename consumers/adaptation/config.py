"""How growth goes about in one run. What it may grow, and when, is the budget: `policy.Limits`."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec

from morphogen.consumers.executor import ExecutorConfig
from morphogen.schemas import line_of, sound

from .errors import GrowthError


class GrowthConfig(ExecutorConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of growth, those of the executor among them. Times are epochs where nothing else is said."""

    LEAST: ClassVar[Mapping[str, int]] = {**ExecutorConfig.LEAST, "plateau_window": 1, "most_failures": 1}

    plateau_window: int = 5  # the mean loss of so many epochs against that of as many before
    plateau_threshold: float = 0.02  # a fall by less than this share is a plateau
    dry_run: bool = False  # try what is to grow on a copy of the model first, with `evaluate`
    dry_run_bound: float = 3.0  # a copy whose loss is more than so many times the model's is not followed
    remote_wait: float = 0.0  # seconds that an epoch's end waits for a command, with policy="remote"
    finish_at_end: bool = True  # judge what still grows when the run ends
    most_failures: int = 10  # failures of growth itself before it is switched off for the rest of the run


_T = TypeVar("_T", bound=msgspec.Struct)


def converted(value: _T | Mapping[str, Any] | None, kind: type[_T], what: str) -> _T:
    """Return settings that were given as such, as a mapping of names, or not at all. Raises GrowthError."""
    if value is None:
        return kind()
    if isinstance(value, kind):
        value = msgspec.structs.asdict(value)  # made by hand it may hold anything
    if not isinstance(value, Mapping):
        raise GrowthError(f"{what} is a {kind.__name__} or a mapping, not a {type(value).__name__}")
    unknown = [sound(name) for name in value if name not in kind.__struct_fields__]
    if unknown:
        raise GrowthError(f"{what} has no {unknown[0]!r:.100}: it has {', '.join(kind.__struct_fields__)}")
    try:
        return msgspec.convert(dict(value), kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise GrowthError(f"{what} does not fit: {line_of(error)}") from error
