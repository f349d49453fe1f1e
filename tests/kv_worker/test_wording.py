"""Text is given out once, in order, and never a character of a stop or half a character."""

from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv.wording import Wording, before

TEXTS = st.text("abé", max_size=30)
STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)


@given(TEXTS, st.lists(st.integers(1, 5), max_size=40))
def test_bytes_cut_anywhere_add_up_to_their_text(text: str, cuts: list[int]) -> None:
    data, words = text.encode(), Wording()
    while data:
        size = cuts.pop() if cuts else 1
        words.hear(data[:size])
        data = data[size:]
        assert text.startswith(words.text)
    words.hear(b"", last=True)

    assert words.text == text


@given(TEXTS, STOPS)
def test_what_was_given_out_is_never_taken_back(text: str, stops: list[str]) -> None:
    words, said = Wording(), ""
    for letter in text:
        words.hear(letter.encode())
        if any(stop in words.text for stop in stops):
            break
        said += words.give(words.sure(stops))
    kept = before(words.text, stops)

    assert kept.startswith(said)
    assert said + words.give(len(kept)) == kept


def test_bytes_that_are_no_text_become_marks_and_end_nothing() -> None:
    words = Wording()
    words.hear(b"a\xff\xc3")
    words.hear(b"", last=True)

    assert words.text == "a\ufffd\ufffd"
    words.clear()
    assert (words.text, words.given) == ("", 0)
