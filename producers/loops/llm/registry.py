"""From a name and options to a backend. Those of other packages come by entry points of group `morphogen.backends`."""

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .backend import Backend
from .errors import BackendError

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

GROUP = "morphogen.backends"
_T = TypeVar("_T")


def backend(name: str, options: Mapping[str, Any] | None = None, *, bus: "Bus | None" = None) -> Backend:
    """Return the backend of that name, made with `options`; `bus` is where `replay` reads the log.

    Raises BackendError where the name or an option is not known, with the known ones.
    """
    given = dict(options or {})
    make = _BUILT_IN.get(name)
    if make is not None:
        return make(given, bus)
    for point in metadata.entry_points(group=GROUP, name=name):
        try:
            made = point.load()(given)
        except BackendError:
            raise
        except (Exception, SystemExit) as error:
            raise BackendError(
                f"backend {name!r} ({point.value}) cannot be made: {_line(error)}", called=False
            ) from error
        if not isinstance(made, Backend):
            raise BackendError(
                f"backend {name!r} ({point.value}) has no name and ask(query): see docs/knowledge/backends.md",
                called=False,
            )
        return made
    raise BackendError(f"no backend {name!r}: known are {', '.join(backend_names())}", called=False)


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, ours first."""
    others = sorted({point.name for point in metadata.entry_points(group=GROUP)} - set(_BUILT_IN))
    return (*_BUILT_IN, *others)


def read_options(name: str, options: Mapping[str, Any], into: type[_T]) -> _T:
    """Return the options as their type. Raises BackendError that names the option and what it takes."""
    try:
        return msgspec.convert(options, into, strict=False)  # a command line gives "0.2" for 0.2
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(into))  # type: ignore[arg-type]
        raise BackendError(f"backend {name}: {error}; its options are {known or 'none'}", called=False) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _suspend(options: Mapping[str, Any], bus: "Bus | None") -> Backend:
    from .suspend import SuspendBackend, SuspendOptions

    return SuspendBackend(read_options("suspend", options, SuspendOptions))


def _script(options: Mapping[str, Any], bus: "Bus | None") -> Backend:
    from .script import ScriptBackend, ScriptOptions

    return ScriptBackend(read_options("script", options, ScriptOptions))


def _replay(options: Mapping[str, Any], bus: "Bus | None") -> Backend:
    from .replay import ReplayOptions, replay_from_log

    chosen = read_options("replay", options, ReplayOptions)
    if bus is None:
        raise BackendError("backend replay reads a run's replies from the log: it needs a bus", called=False)
    return replay_from_log(bus, chosen)


def _openai(options: Mapping[str, Any], bus: "Bus | None") -> Backend:
    from .openai import OpenAIBackend
    from .openai_options import OpenAIOptions

    return OpenAIBackend(read_options("openai", options, OpenAIOptions))


def _llama(options: Mapping[str, Any], bus: "Bus | None") -> Backend:
    from .llama import LlamaBackend, LlamaOptions

    return LlamaBackend(read_options("llama", options, LlamaOptions))


_BUILT_IN: dict[str, Callable[[Mapping[str, Any], "Bus | None"], Backend]] = {
    "suspend": _suspend,
    "script": _script,
    "replay": _replay,
    "openai": _openai,
    "llama": _llama,
}
