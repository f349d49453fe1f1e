"""What `morphogen do` may be told once for all: a file of settings, under the options of a command line.

    # <data folder>/do.toml
    backend = "openai"
    backend_options = { base_url = "http://127.0.0.1:11434/v1", model = "llama3" }
    packages = ["torch"]

    [[program]]
    goal = "sum the column {column} of {path}"
    file = "sum.mk"

The price of a model is no option of a backend here: it stands in the file of prices.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from morphogen.schemas import MorphogenError
from morphogen.schemas.goals import signature

if TYPE_CHECKING:
    from morphogen.consumers.dispatch import DispatchConfig
    from morphogen.producers.loops.goals import Program

FILE = "do.toml"


class DoError(MorphogenError):
    """What was asked of `morphogen do` cannot be understood: exit code 2."""


class ForGoal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which program pursues the goals of a family. `goal` names its values: "sum the column {column} of {path}"."""

    goal: str
    file: str
    name: str | None = None


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The probabilities of success that modes need; those of dispatch where they are None."""

    crystallized: float | None = None
    follower: float | None = None
    mixed: float | None = None
    learner: float | None = None


class DoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of `morphogen do`; all may be left out.

    `packages` and `environment` are what courses depend on beside their parameters: they are recorded with each execution,
    and guard tools. `without` takes functions away from every request. With `trusted` (ed25519 public keys, hex) only tools
    that one of them signed are called.
    """

    backend: str | None = None
    backend_options: dict[str, Any] = {}
    judge: bool = False
    rounds: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    allow_run: bool = False
    without: tuple[str, ...] = ()
    trusted: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()
    environment: dict[str, str | int | float | bool] = {}
    thresholds: Thresholds = Thresholds()
    program: tuple[ForGoal, ...] = ()

    def config(self, *, shadow: bool = True) -> "DispatchConfig":
        """Return what dispatch is told. Raises DispatchError for thresholds that contradict each other."""
        from morphogen.consumers.dispatch import DispatchConfig

        given = {name: value for name, value in msgspec.structs.asdict(self.thresholds).items() if value is not None}
        return DispatchConfig(shadow=shadow, **given)

    def programs(self, folder: Path) -> "Mapping[str, Program]":
        """Return the program of each family by its signature; files are relative to the settings' own folder."""
        from morphogen.producers.loops.goals import Program

        return {signature(one.goal): Program(folder / Path(one.file).expanduser(), one.name) for one in self.program}


def read_settings(path: Path, *, named: bool) -> DoSettings:
    """Return the settings of a file, the defaults where there is none and nobody `named` it. Raises DoError."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), DoSettings)
    except FileNotFoundError:
        if named:
            raise DoError(f"there is no file of settings {path}: name another with --config, or write it") from None
        return DoSettings()
    except OSError as error:
        raise DoError(
            f"the settings {path} cannot be read: {error.strerror}; name another file with --config"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(DoSettings))
        raise DoError(f"{path}: {' '.join(str(error).split())}; it may hold {known}") from None


def micros(text: str) -> int:
    """Return an amount of dollars (`0.05`, `$0.05`) in micro-dollars. Raises DoError."""
    from decimal import Decimal, InvalidOperation

    try:
        amount = Decimal(text.strip().removeprefix("$").strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount >= 1_000_000_000:
        raise DoError(f"--budget takes dollars, such as 0.05, got {text!r}")
    return int(amount * 1_000_000)
