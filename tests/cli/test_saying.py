"""What others wrote reaches a terminal as letters and never as commands; files and pipes get it as it is."""

import subprocess
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.saying import cell, harmless, word
from morphogen.schemas.kv import KvBlocksStored

from .test_history import MORPHOGEN, on_a_terminal

FORGED = "\x1b[31mred\x1b]0;mine\x07\nevil w: 7 blocks\x1b[2J"


@given(st.text())
@example(FORGED)
@example("\x9b2J")
@example("a\rb")
@example("\u202egnp.exe")
def test_no_text_moves_the_cursor_or_turns_letters(text: str) -> None:
    shown = harmless(text)
    assert not any(unicodedata.category(mark) == "Cc" for mark in shown.replace("\r\n", "\n") if mark not in "\t\n")
    assert not any(unicodedata.bidirectional(mark) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI")
                   for mark in shown)  # fmt: skip
    assert len((word(text) + ".").splitlines()) <= 1 + shown.count("\x85")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays(text: str) -> None:
    assert harmless(text) == word(text) == text


def test_markup_in_a_cell_is_text() -> None:
    from rich.text import Text

    assert Text.from_markup(cell("[bold]x[/] \x1b[1m")).plain == "[bold]x[/] \\x1b[1m"


def test_what_another_engine_calls_itself_forges_no_line(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        bus.emit(
            KvBlocksStored(
                engine="e", dialect="vllm", worker="w", block_hashes=["a"], block_size=4, medium=FORGED, root="model:m",
                hashes=b"0" * 16, details={"depths": [1]},
            ),
            msg_id="stored",
        )  # fmt: skip
    query = "SELECT chr(27) || '[2J' AS wiped, 'a' AS fine"

    code, listed = on_a_terminal(f"{MORPHOGEN} kv list")
    _, rows = on_a_terminal(f'{MORPHOGEN} sql "{query}"')
    piped = subprocess.run(
        [*MORPHOGEN.split(), "sql", "-f", "csv", query], capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert code == 0
    assert "blocks in \\x1b[31mred\\x1b]0;mine\\x07\\nevil w: 7 blocks\\x1b[2j" in listed.replace("\r\n", "")
    assert "\x1b[2J" not in listed + rows
    assert "\\x1b[2J" in rows
    assert "\x1b[2J" in piped
