"""What the log calls a policy: its name, and the version that it began with."""

from typing import Any

from morphogen.schemas import line_of, plain, sound

from .errors import PolicyError

_LONGEST = 200  # characters


def name_of(policy: Any) -> str:
    """Return a policy's name as the log has it. Raises PolicyError where it has none, or none that the log can hold."""
    name = _told(policy, "name")
    if not name:
        raise PolicyError(f"{type(policy).__name__} is no policy: it has no name")
    return name


def version_of(policy: Any) -> str | None:
    """Return a policy's version as the log has it, None where it has none. Raises PolicyError as `name_of` does."""
    return _told(policy, "version")


def _told(policy: Any, attribute: str) -> str | None:
    try:
        found = getattr(policy, attribute)
    except (Exception, SystemExit) as error:  # anybody's property
        raise PolicyError(
            f"{type(policy).__name__} is no policy: {type(error).__name__}: {line_of(error, 200)}"
        ) from error
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(plain(found))
    if found is None:
        return None
    if isinstance(found, str) and len(found) <= _LONGEST and (told := sound(found)) == found:
        return told
    raise PolicyError(
        f"{type(policy).__name__} is no policy: its {attribute} is text of {_LONGEST} characters at most, or a whole "
        f"number, not {plain(found)!r:.100}"
    )
