"""Performs what a tool asks for, on the host's side of the channel, and keeps a record of each use.

File operations, and what is declared never to wait, run at once; any other tool runs on a thread beside it, so that one
that overruns its deadline ends the call and not the host (the thread is left to finish by itself, and its effect is recorded as unfinished).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from .capabilities import Capabilities, Declared
from .errors import Refused
from .inside.codec import Uncrossable, decode, encode
from .limits import Limits
from .outcome import Effect
from .scrub import scrub
from .signatures import signature_of, takes_anything
from .values import value_sha256
from .waiting import Unfinished, WaitingThreads, contained
from .workspace import Workspace

_READ = msgspec.msgpack.decode  # the quicker reader, for what `decode` has let pass
_MAX_ERROR = 8 << 10  # bytes of a reply that tells an error: a tool is told, however little a value may hold


class _Done(NamedTuple):
    """One use that is not written down yet; `result` holds one value, and is None where it failed.

    The arguments are as they came: those that the function was given are its own, to change even after its time.
    """

    name: str
    effect: str
    args: bytes
    kwargs: bytes
    result: list[object] | None
    error: str | None
    duration_ns: int


class Broker:
    """The capabilities of one call, and what was done with them."""

    def __init__(self, capabilities: Capabilities, limits: Limits, threads: WaitingThreads) -> None:
        self.capabilities = capabilities
        self.limits = limits
        self.threads = threads
        self._effects: list[Effect] = []
        self._done: list[_Done] = []

    def perform(self, name: str, args: msgspec.Raw, kwargs: msgspec.Raw, ends_at: float) -> bytes:
        """Do one thing, and return the encoded reply: a value, or an error in one line.

        Raises Unfinished where the deadline passed, and Uncrossable where the request is garbage.
        """
        asked = bytes(args), bytes(kwargs)
        positional, named = (decode(data, self.limits.value_items) for data in asked)
        if not isinstance(positional, list) or not isinstance(named, dict):
            raise Uncrossable("a request without arguments")
        began = time.monotonic_ns()
        declared = self.capabilities.functions.get(name)
        crossed: list[object] | None = None
        error: str | None = None
        try:
            if declared is None:
                raise Refused(f"there is no tool {name[:80]!r} here; declare it in the sandbox's capabilities")
            value = self._call(name, declared, positional, named, ends_at)
            reply = encode({"value": value}, self.limits.value_bytes)
            crossed = [decode(reply, self.limits.value_items)["value"]]  # type: ignore[index]  # what crosses counts
        except Unfinished:
            error = "unfinished: the deadline passed"
            raise
        except (Refused, Uncrossable) as refusal:
            error = _crossable(str(refusal))
        except Exception as failure:  # noqa: BLE001 - a declared tool may fail in any way: the tool is told
            error = _crossable(f"{name} failed: {_told(failure)}")
        finally:
            effect = declared.effect if declared else "pure"
            spent = time.monotonic_ns() - began
            self._done.append(_Done(name[:200], effect, *asked, crossed, error, spent))
        return reply if error is None else encode({"error": error}, _MAX_ERROR)

    def settle(self) -> None:
        """Write down what was done, and let the capabilities do so: while the tool goes on with the answer."""
        for one in self._done:
            result = None if one.result is None else value_sha256(one.result[0])
            arguments = value_sha256([_READ(data) for data in (one.args, one.kwargs)])
            self._effects.append(Effect(name=one.name, effect=one.effect, arguments=arguments, result=result,
                                        error=one.error, duration_ns=one.duration_ns))  # fmt: skip
        self._done.clear()
        self.capabilities.settle()

    def effects(self) -> tuple[Effect, ...]:
        """Return each use, in order."""
        self.settle()
        return tuple(self._effects)

    def _call(
        self, name: str, declared: Declared, args: list[object], kwargs: dict[str | int, object], ends_at: float
    ) -> object:
        _fits(name, declared.function, args, kwargs)
        named = {str(key): value for key, value in kwargs.items()}
        if isinstance(getattr(declared.function, "__self__", None), Workspace):
            try:
                return declared.function(*args, **named)
            except FileNotFoundError:
                raise Refused(
                    f"there is no file {args[:1] or list(named.values())[:1]}; list the folder first"
                ) from None
            except (AttributeError, TypeError):
                raise Refused(f"{name} takes a path as text, and what it writes as text or bytes") from None
            except OSError as error:
                raise Refused(f"{name} failed: {error.strerror}") from None
        if not declared.waits:
            return _at_once(declared.function, args, named)
        patience = min(self.limits.capability_seconds, ends_at - time.monotonic())
        return self.threads.run(lambda: declared.function(*args, **named), patience)


def _at_once(function: Callable[..., object], args: list[object], named: dict[str, object]) -> object:
    """Call it here, on the thread of the caller, to whom an interrupt may come meanwhile."""
    try:
        return function(*args, **named)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as failure:  # noqa: BLE001 - such as SystemExit: as where it is waited for
        raise contained(failure) from None


def _told(failure: Exception) -> str:
    try:
        return f"{type(failure).__name__}: {failure}"
    except Exception:  # noqa: BLE001 - an error whose text cannot be had is told by its name
        return type(failure).__name__


def _crossable(text: str) -> str:
    return scrub(text[:2000]).encode("utf-8", "replace").decode("utf-8")[:1000]


def _fits(name: str, function: Callable[..., object], args: list[object], kwargs: dict[str | int, object]) -> None:
    if takes_anything(function):
        return
    try:
        signature = signature_of(function)
        if signature is not None:
            signature.bind(*args, **{str(key): value for key, value in kwargs.items()})
    except TypeError as error:
        raise Refused(f"{name}: {error}") from None
