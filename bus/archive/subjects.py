"""What the subject of a message says of it: run and family, as tokens."""

from collections.abc import Iterable

from morphogen.schemas import token

_PREFIX = "morphogen.log."


def tokens(run: str | None, family: str | Iterable[str] | None) -> tuple[str | None, frozenset[str] | None]:
    """Return a run and families (one, several, or None for all) as the tokens that subjects carry."""
    names = None if family is None else [family] if isinstance(family, str) else family
    return (None if run is None else token(run)), (None if names is None else frozenset(map(token, names)))


def matches(subject: str, run: str | None, families: frozenset[str] | None) -> bool:
    """Tell whether a subject is of the run and one of the families, as the broker would; None is any."""
    its_run, its_family = subject_tokens(subject)
    return (run is None or its_run == run) and (families is None or its_family in families)


def subject_tokens(subject: str) -> tuple[str, str]:
    """Return the run and family of a subject, as tokens; "=" where it is not one of a lane."""
    parts = subject.removeprefix(_PREFIX).split(".")
    return (parts[0], parts[1]) if subject.startswith(_PREFIX) and len(parts) == 3 else ("=", "=")
