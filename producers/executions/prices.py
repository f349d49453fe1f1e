"""What models cost, as their user has written it down: never guessed, so a model without a price costs nobody knows what.

    # <data folder>/prices.toml: micro-dollars for a million tokens, so 150000 is 0.15 USD
    ["gpt-4o-mini"]
    input = 150000
    output = 600000

`MORPHOGEN_PRICES` names another file. The numbers are those that a backend takes as its `prices`.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .errors import PricesError

if TYPE_CHECKING:
    from ..loops.llm.budget import Price

SCRIPT = "script"  # the backend that plays back a file: no model is asked, so it costs nothing


class Prices:
    """Prices by model."""

    def __init__(self, models: "Mapping[str, Price] | None" = None) -> None:
        self.models = dict(models or {})

    def cost(
        self, model: str | None, tokens_in: int | None, tokens_out: int | None, *, backend: str = ""
    ) -> tuple[int | None, str | None]:
        """Return the cost in micro-dollars, rounded up, and who says so: `script`, `prices`, or None where nobody does."""
        if backend == SCRIPT:
            return 0, SCRIPT
        price = None if model is None else self.models.get(model)
        if price is None or tokens_in is None or tokens_out is None:
            return None, None
        return price.of(tokens_in, tokens_out), "prices"


def read_prices(home: Path, env: Mapping[str, str] = os.environ) -> Prices:
    """Return the prices of a data folder, none where it has no file. Raises PricesError, which says what is wrong in it."""
    named = env.get("MORPHOGEN_PRICES")
    path = Path(named).expanduser() if named else home / "prices.toml"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if named:
            raise PricesError(
                f"MORPHOGEN_PRICES names {path}, which is not there; unset it or write the file"
            ) from None
        return Prices()
    except (OSError, UnicodeDecodeError) as error:
        raise PricesError(f"{path} cannot be read: {error}") from None
    from ..loops.llm.budget import Price

    try:
        return Prices(msgspec.convert(tomllib.loads(text), dict[str, Price]))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PricesError(
            f'{path}: {" ".join(str(error).split())}; write ["model"] with input and output in micro-dollars a million'
        ) from None
