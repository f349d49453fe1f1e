"""Replies from a file."""

from pathlib import Path

import pytest

from morphogen.producers.loops.llm import BackendError, NoReply, Query, backend
from morphogen.producers.loops.llm.backend import Backend


def scripted(folder: Path, text: str, name: str = "replies.toml") -> Backend:
    path = folder / name
    path.write_text(text)
    return backend("script", {"file": str(path)})


def text_of(made: Backend, query: Query) -> str:
    reply = made.ask(query)
    assert hasattr(reply, "text")
    return str(reply.text)


def test_a_reply_is_found_by_hash_by_its_beginning_by_exact_text_by_pattern_and_by_step(tmp_path: Path) -> None:
    one, two = Query("first question"), Query("second question")
    made = scripted(
        tmp_path,
        f"""
        [[reply]]
        sha256 = "{one.sha256}"
        text = "by hash"
        [[reply]]
        sha256 = "{two.sha256[:12].upper()}"
        text = "by its beginning"
        [[reply]]
        prompt = "  third question  "
        text = "by text"
        [[reply]]
        pattern = "(?i)FOURTH \\\\w+"
        text = "by pattern"
        [[reply]]
        step = "ask.two"
        json = {{ score = 0.5 }}
        """,
    )

    assert text_of(made, one) == "by hash"
    assert text_of(made, two) == "by its beginning"
    assert text_of(made, Query("third question")) == "by text"
    assert text_of(made, Query("the fourth question")) == "by pattern"
    assert text_of(made, Query("fifth", step="ask.two")) == '{"score": 0.5}'


def test_replies_that_fit_one_prompt_are_given_in_order_by_how_often_it_was_asked(tmp_path: Path) -> None:
    made = scripted(
        tmp_path,
        """
        [[reply]]
        pattern = "dice"
        text = "1"
        times = 2
        [[reply]]
        pattern = "dice"
        text = "6"
        """,
    )

    assert [text_of(made, Query("dice", occurrence=asked)) for asked in (0, 1, 2)] == ["1", "1", "6"]
    assert text_of(made, Query("dice", occurrence=2)) == "6"  # the same in any process: nothing is used up in memory
    with pytest.raises(NoReply, match="2 fitting replies are used up"):
        made.ask(Query("dice", occurrence=3))


def test_a_reply_may_be_for_a_repair_or_for_the_nth_query_of_the_run_or_for_ever(tmp_path: Path) -> None:
    made = scripted(
        tmp_path,
        """
        [[reply]]
        attempt = 1
        text = "mended"
        [[reply]]
        call = 3
        text = "third"
        [[reply]]
        always = true
        text = "else"
        """,
    )

    assert text_of(made, Query("x", attempt=1)) == "mended"
    assert text_of(made, Query("x", call=2)) == "third"
    assert text_of(made, Query("x", occurrence=99)) == "else"


def test_a_prompt_without_a_reply_is_an_error_that_prints_the_hash_to_add(tmp_path: Path) -> None:
    query = Query("What is\nthis?", step="ask")

    with pytest.raises(NoReply) as caught:
        scripted(tmp_path, "").ask(query)

    assert f'sha256 = "{query.sha256}"' in str(caught.value)
    assert "replies.toml" in str(caught.value)
    assert '"What is this?"' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert text_of(scripted(tmp_path, f'[[reply]]\nsha256 = "{query.sha256}"\ntext = "now"'), query) == "now"


def test_json_files_are_read_too(tmp_path: Path) -> None:
    made = scripted(tmp_path, '{"reply": [{"text": "hi", "always": true}]}', "replies.json")

    assert text_of(made, Query("x")) == "hi"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[reply]", "is no script of replies"),
        ('[[reply]]\ntxt = "x"', r"unknown field `txt` - at `\$.reply\[0\]`"),
        ('[[reply]]\npattern = "x"', "reply 1: give one of text and json"),
        ('[[reply]]\ntext = "x"\njson = {}', "reply 1: give one of text and json"),
        ('[[reply]]\ntext = "x"\ntokens_in = -5', "reply 1: tokens_in is a whole number from 0"),
        ('[[reply]]\ntext = "x"\ncost_usd_micros = -100', "reply 1: cost_usd_micros is a whole number from 0"),
        ('[[reply]]\ntext = "x"\npattern = "("', "reply 1: pattern is no regular expression"),
        ('[[reply]]\ntext = "x"\nsha256 = "abc"', "8 to 64 hex digits"),
        ('[[reply]]\ntext = "x"\ntimes = 0', "times is a number from 1"),
    ],
)
def test_a_script_that_is_written_wrongly_is_told_by_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        scripted(tmp_path, text)
    assert "replies.toml" in str(caught.value)


def test_a_missing_script_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot read the replies in"):
        backend("script", {"file": str(tmp_path / "none.toml")})
