"""Policies by name, by checkpoint, by `module:Class`."""

import inspect
import operator
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from morphogen.schemas import line_of, plain

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .errors import CheckpointError, PolicyError
from .identity import name_of, version_of
from .policies.bandit import Bandit
from .policies.fixed import Fixed
from .policies.heuristic import Heuristic
from .policies.nothing import Nothing
from .policies.random import Random
from .protocol import Policy

LEARNED = "gnn-ppo"
_MADE: dict[str, Callable[..., Policy]] = {
    "none": Nothing,
    "random": Random,
    "fixed": Fixed,
    "heuristic": Heuristic,
    "bandit": Bandit,
}


def names() -> tuple[str, ...]:
    """Return the names of the policies that come with Morphogen."""
    return (*_MADE, LEARNED)


def load_policy(policy: Any, /, seed: int = 0, **options: Any) -> Policy:
    """Return a policy, ready to decide for one run.

    `policy` is a built-in name, the path of a checkpoint, `module:Class` (made with `seed` where it takes one, and
    with `options`), a class, or a policy, which is returned as it is. A bandit or a network from a checkpoint neither
    explores nor learns, unless options say so. Raises PolicyError in one line that says what to write instead.
    """
    seed = _seed(seed)
    if isinstance(policy, Path):
        policy = str(policy)
    if not isinstance(policy, str):
        if isinstance(policy, type):
            return _checked(_made(policy, seed, options, policy.__qualname__))
        return _checked(policy)
    if policy in _MADE:
        return _made(_MADE[policy], seed, options, policy)
    if policy == LEARNED:
        return _checked(_made(_learned().Learned, seed, options, policy))
    if policy.endswith(".safetensors") or _is_file(policy):
        return restored(load_checkpoint(policy), seed=seed, **options)
    module, _, name = policy.partition(":")
    if not name:
        raise PolicyError(
            f"there is no policy {policy!r:.100}: one of {', '.join(names())}, a checkpoint's path, or module:Class"
        )
    try:
        found = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:
        raise PolicyError(
            f"policy {policy!r:.200} cannot be imported: {type(error).__name__}: {line_of(error, 200)}"
        ) from error
    return _checked(_made(found, seed, options, policy) if callable(found) and isinstance(found, type) else found)


def options_of(policy: Any) -> dict[str, Any]:
    """Return what a policy says it was made with, as plain values: its `options`, where it has any."""
    try:
        found = getattr(policy, "options", None)
        return plain(dict(found)) if isinstance(found, Mapping) else {}
    except Exception:  # noqa: BLE001  a policy is anybody's code
        return {}


def restored(checkpoint: Checkpoint, *, seed: int = 0, **options: Any) -> Policy:
    """Return the policy of a checkpoint. Raises CheckpointError where the state does not fit."""
    if checkpoint.policy == LEARNED:
        return _made(partial(_learned().Learned.restored, checkpoint), seed, options, LEARNED)
    if checkpoint.policy != Bandit.name:
        raise PolicyError(f"{checkpoint.file}: of a policy {checkpoint.policy!r:.100}, which is not known here")

    def bandit(**given: Any) -> Policy:
        return Bandit.restored(checkpoint.state, version=checkpoint.version, **given)

    try:
        return _made(bandit, seed, options, Bandit.name)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error


def save_policy(policy: Any, path: str | Path) -> str:
    """Write what `policy` has learned and return the checkpoint's sha256: of a bandit, or of anything with `save`."""
    if isinstance(policy, Bandit):
        return save_checkpoint(path, policy.name, policy.state())
    if hasattr(policy, "save"):
        return str(policy.save(path))
    raise PolicyError(f"policy {getattr(policy, 'name', policy)!r} learns nothing that could be saved")


def _learned() -> Any:
    try:
        return import_module(".gnn", __package__)
    except ImportError as error:
        raise PolicyError(f"policy {LEARNED} needs its extra: pip install 'morphogen[policy]' ({error})") from error


def _made(made: Callable[..., Policy], seed: int, options: dict[str, Any], name: str) -> Policy:
    try:
        known = inspect.signature(made).parameters
        given = {"seed": seed, **options} if "seed" in known or _takes_any(known) else options
        return made(**given)
    except PolicyError:
        raise
    except (TypeError, ValueError) as error:
        raise PolicyError(f"policy {name} cannot be made: {line_of(error, 200)}") from error
    except (Exception, SystemExit) as error:
        raise PolicyError(f"policy {name} cannot be made: {type(error).__name__}: {line_of(error, 200)}") from error


def _seed(seed: Any) -> int:
    try:
        found = -1 if isinstance(seed, bool) else operator.index(seed)  # of numpy too
    except TypeError:
        found = -1
    if not 0 <= found < 1 << 63:
        raise PolicyError(f"a policy's seed is a whole number from 0 to 2^63 - 1, not {plain(seed)!r:.100}")
    return found


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # no name of a file at all, or one that may not be looked at
        return False


def _takes_any(parameters: Any) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _checked(policy: Any) -> Policy:
    try:
        lacks = [name for name in ("name", "version", "decide", "learn") if not hasattr(policy, name)]
    except (Exception, SystemExit) as error:  # anybody's properties
        raise PolicyError(
            f"{type(policy).__name__} is no policy: {type(error).__name__}: {line_of(error, 200)}"
        ) from error
    if lacks:
        raise PolicyError(f"{type(policy).__name__} is no policy: it lacks {', '.join(lacks)}")
    name_of(policy)
    version_of(policy)
    return policy  # type: ignore[no-any-return]
