"""Performs what a tool asks for, on the host's side of the channel, and keeps a record of each use.

File operations, and what is declared never to wait, run at once; any other tool runs on a thread of its own, so that one
that overruns its deadline ends the call and not the host (the thread is left to finish by itself, and its effect is recorded as unfinished).
"""

import inspect
import threading
import time
from collections.abc import Callable

import msgspec

from .capabilities import Capabilities, Declared
from .errors import Refused
from .inside.codec import Uncrossable, decode, encode
from .limits import Limits
from .outcome import Effect
from .scrub import scrub
from .values import value_sha256
from .workspace import Workspace


class Unfinished(Exception):
    """A declared tool did not return in time."""


class Broker:
    """The capabilities of one call, and what was done with them."""

    def __init__(self, capabilities: Capabilities, limits: Limits) -> None:
        self.capabilities = capabilities
        self.limits = limits
        self.effects: list[Effect] = []

    def perform(self, name: str, args: msgspec.Raw, kwargs: msgspec.Raw, ends_at: float) -> bytes:
        """Do one thing, and return the encoded reply: a value, or an error in one line.

        Raises Unfinished where the deadline passed, and Uncrossable where the request is garbage.
        """
        positional, named = decode(bytes(args), self.limits.value_items), decode(bytes(kwargs), self.limits.value_items)
        if not isinstance(positional, list) or not isinstance(named, dict):
            raise Uncrossable("a request without arguments")
        began = time.monotonic_ns()
        declared = self.capabilities.functions.get(name)
        result: str | None = None
        error: str | None = None
        try:
            if declared is None:
                raise Refused(f"there is no tool {name[:80]!r} here; declare it in the sandbox's capabilities")
            value = self._call(name, declared, positional, named, ends_at)
            reply = encode({"value": value}, self.limits.value_bytes)
            result = value_sha256(decode(reply, self.limits.value_items)["value"])  # type: ignore[index]  # what crosses counts
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
            self.effects.append(
                Effect(
                    name=name[:200],
                    effect=effect,
                    arguments=value_sha256([positional, named]),
                    result=result,
                    error=error,
                    duration_ns=spent,
                )
            )
        return reply if error is None else encode({"error": error}, self.limits.value_bytes)

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
            return declared.function(*args, **named)
        patience = min(self.limits.capability_seconds, ends_at - time.monotonic())
        return _on_a_thread(lambda: declared.function(*args, **named), patience)


def _told(failure: Exception) -> str:
    try:
        return f"{type(failure).__name__}: {failure}"
    except Exception:  # noqa: BLE001 - an error whose text cannot be had is told by its name
        return type(failure).__name__


def _crossable(text: str) -> str:
    return scrub(text[:2000]).encode("utf-8", "replace").decode("utf-8")[:1000]


def _fits(name: str, function: Callable[..., object], args: list[object], kwargs: dict[str | int, object]) -> None:
    try:
        inspect.signature(function).bind(*args, **{str(key): value for key, value in kwargs.items()})
    except TypeError as error:
        raise Refused(f"{name}: {error}") from None
    except ValueError:
        return  # a C function that does not tell its signature


def _on_a_thread(action: Callable[[], object], patience: float) -> object:
    answer: list[object] = []
    failure: list[BaseException] = []

    def act() -> None:
        try:
            answer.append(action())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            failure.append(error)

    thread = threading.Thread(target=act, name="sandbox-capability", daemon=True)
    thread.start()
    thread.join(max(0.0, patience))
    if failure:
        raise failure[0] if isinstance(failure[0], Exception) else RuntimeError(repr(failure[0]))
    if not answer:
        raise Unfinished
    return answer[0]
