"""Sizes as a person writes them."""

import pytest
import typer

from morphogen.cli.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("512MiB", 512 << 20), (" 8 GB ", 8 * 10**9), ("1.5k", 1500), ("2tib", 2 << 40)]
)
def test_a_size_is_read_with_its_unit(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "much", "1e9", "9" * 400, "9999999TiB"])
def test_what_is_no_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 512MiB"):
        parse_size(text)
