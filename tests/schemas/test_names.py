"""Any name makes a safe subject token and comes back."""

import re

from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas import token, untoken


@given(st.text(max_size=60))
def test_any_name_makes_a_safe_token(name: str) -> None:
    safe = token(name)

    assert re.fullmatch(r"[A-Za-z0-9_=~-]{1,120}", safe)


@given(st.text(alphabet=st.characters(max_codepoint=0x7F), max_size=35))
def test_short_names_come_back(name: str) -> None:
    assert name == untoken(token(name))


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_names_never_share_a_token(one: str, other: str) -> None:
    assert (one == other) == (token(one) == token(other))


def test_dots_spaces_and_wildcards_do_not_break_a_subject() -> None:
    assert token("rés.net 50/*>") == "r=C3=A9s=2Enet=2050=2F=2A=3E"


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    assert len(token("x" * 500)) <= 120
    assert token("x" * 500) != token("x" * 501)
    assert untoken(token("x" * 500)) is None


def test_what_is_no_token_is_refused() -> None:
    assert untoken("a.b") is None
    assert untoken("=ZZ") is None
    assert untoken("=FF") is None
