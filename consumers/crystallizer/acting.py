"""What a tool did with its capabilities: each use with its arguments and result, kept while it acts.

The sandbox records hashes; a mode that takes over after a tool needs the values, and a guard of the world looks at them.
"""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from morphogen.kernels.sandbox import Capabilities, Declared, Refused, Workspace, signature_of
from morphogen.schemas.settling import settled

CHANGES = frozenset({"write", "external"})  # what may alter the world


@dataclass(frozen=True, kw_only=True)
class Use:
    """One use of a capability. `result` is None where it failed, and `error` says why in one line."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    effect: str = "external"  # pure | read | write | external
    result: Any = None
    ok: bool = True
    error: str | None = None
    duration_ns: int = 0


Answer = Callable[[str, dict[str, Any]], Any]


def bound(function: Callable[..., Any] | None, args: Iterable[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by name, defaults included, so that two spellings of one call are equal.

    Without a signature, positional arguments go by their number. Raises TypeError where they do not fit.
    """
    given = list(args)
    if not given and function is not None and (plain := _named_alone(function)) is not None:
        if named.keys() == plain.keys():
            return {name: _crossed(named[name]) for name in plain}
        if named.keys() < plain.keys():
            filled = {name: _crossed(named.get(name, default)) for name, default in plain.items()}
            if inspect.Parameter.empty not in filled.values():
                return filled
    signature = None if function is None else signature_of(function)
    if signature is None:
        return {**{str(at): value for at, value in enumerate(given)}, **named}
    found = signature.bind(*given, **named)
    found.apply_defaults()
    out: dict[str, Any] = {}
    for name, value in found.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            out.update(value)
        elif kind is not inspect.Parameter.VAR_POSITIONAL or value:
            out[name] = _crossed(value)
    return out


def _crossed(value: Any) -> Any:
    """Return an argument as it is recorded: a tuple, such as a default may be, is a list then."""
    return list(value) if isinstance(value, tuple) else value


def as_recorded(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as a recording holds them: a default that was filled in may be any object."""
    return {name: settled(value) for name, value in args.items()}


def _named_alone(function: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the defaults of a function whose every parameter may be given by name, None for any other."""
    signature = signature_of(function)
    if signature is None:
        return None
    parameters = signature.parameters.values()
    if any(one.kind not in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY} for one in parameters):
        return None
    return {one.name: one.default for one in parameters}


def answering(names: Mapping[str, Declared | None], answer: Answer, *, waits: bool = True) -> Capabilities:
    """Return capabilities of these names that all ask `answer(name, arguments by name)`; effects and signatures stay.

    `waits` is False where no answer can take long; else a function waits where the real one does.
    """
    return Capabilities(tools={name: _declared(name, real, answer, waits) for name, real in names.items()})


def _declared(name: str, real: Declared | None, answer: Answer, waits: bool) -> Declared:
    def use(*args: Any, **named: Any) -> Any:
        try:
            given = bound(None if real is None else real.function, args, named)
        except TypeError as error:
            raise Refused(f"{name}: {error}") from None
        return answer(name, given)

    if real is None:
        return Declared(use, waits=waits)
    return Declared(use, real.effect, waits=waits and real.waits)


class Watch:
    """Real capabilities that remember each use, with values as a recording holds them: those the tool was proven on.

    `look` sees each result, and may say why the tool is to be stopped.

    Once it has, nothing more is done for the tool: a world that is not as it was is not to be acted upon. It looks while
    the tool goes on with the result, always before the next use.
    """

    def __init__(
        self, real: Capabilities, names: Iterable[str], look: Callable[[Use], str | None] | None = None
    ) -> None:
        self.uses: list[Use] = []
        self.stopped: str | None = None
        self._real = real.functions
        self._look = look
        self._seen = 0
        self.capabilities = answering({name: real.functions[name] for name in names}, self._answer)
        self.capabilities.settle = self._settle

    def _answer(self, name: str, args: dict[str, Any]) -> Any:
        self._settle()  # where the one before was not used by a sandbox
        if self.stopped is not None:
            raise Refused(self.stopped)
        declared = self._real[name]
        began = time.monotonic_ns()
        result, error = None, None
        try:
            result = settled(perform(name, declared, args))
        except Refused as refusal:
            error = str(refusal)
            raise
        except Exception as failure:
            error = f"{name} failed: {type(failure).__name__}: {failure}"
            raise
        finally:
            spent = time.monotonic_ns() - began
            use = Use(
                name=name,
                args=as_recorded(args),
                effect=declared.effect,
                result=result,
                ok=error is None,
                error=error,
                duration_ns=spent,
            )
            self.uses.append(use)
        return result

    def _settle(self) -> None:
        while self._look is not None and self.stopped is None and self._seen < len(self.uses):
            use = self.uses[self._seen]
            self._seen += 1
            if use.ok:
                self.stopped = self._look(use)


def perform(name: str, declared: Declared, args: dict[str, Any]) -> Any:
    """Call it; what a workspace raises becomes the refusal that the sandbox itself would have told."""
    if not isinstance(getattr(declared.function, "__self__", None), Workspace):
        return _call(declared.function, args)
    try:
        return declared.function(**args)
    except FileNotFoundError:
        raise Refused(f"there is no file {list(args.values())[:1]}; list the folder first") from None
    except (AttributeError, TypeError):
        raise Refused(f"{name} takes a path as text, and what it writes as text or bytes") from None
    except OSError as error:
        raise Refused(f"{name} failed: {error.strerror}") from None


def _call(function: Callable[..., Any], args: dict[str, Any]) -> Any:
    """Call a function with arguments by name, those that it takes by place alone by place."""
    signature = signature_of(function)
    if signature is None:
        by_place = [args[key] for key in sorted((key for key in args if key.isdecimal()), key=int)]
        return function(*by_place, **{key: value for key, value in args.items() if not key.isdecimal()})
    parameters = signature.parameters.values()
    left, placed = dict(args), []
    star = next((one.name for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL), None)
    for one in parameters:
        if one.kind is inspect.Parameter.POSITIONAL_ONLY or (star in left and one.kind is not one.KEYWORD_ONLY):
            if one.name == star:
                placed += left.pop(one.name)
            elif one.name in left and one.kind is not inspect.Parameter.VAR_KEYWORD:
                placed.append(left.pop(one.name))
    return function(*placed, **left)
