"""The formatter changes the layout and nothing else, and has nothing to change the second time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.format import format_text
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tree import Module

from .generated import MODULES, scattered_source
from .programs import FUSE, TASK, TUNER, WHOLE


def words(texts: list[str]) -> list[list[str]]:
    return [text.split() for text in texts]


@settings(max_examples=25)
@given(MODULES, st.randoms(use_true_random=False))
def test_formatting_keeps_the_tree_and_every_comment_and_is_done_at_once(module: Module, chance: random.Random) -> None:
    source, comments = scattered_source(module, chance)

    formatted = format_text(source)
    again = parse(formatted)

    assert again.diagnostics == ()
    assert again.module == module
    assert words([one.text for one in again.comments]) == words(comments)
    assert format_text(formatted) == formatted


@pytest.mark.parametrize("source", [TASK, FUSE, TUNER, WHOLE])
def test_real_programs_keep_their_tree(source: str) -> None:
    formatted = format_text(source)

    assert parse(formatted).module == parse(source).module
    assert format_text(formatted) == formatted


UNTIDY = """---
title:   x
---

// at the top
use   std.training
system S{description:"d"
 // before a section
 trace_schema{variant V{case C{a:int,b:float   in ms
 }}}


 knowledge { // behind a brace
   fact slow(t:V.C){return t.a<3&&not(t.b>5ms)||!x}
   rule "R"{when:slow,apply:[ "a", // first
     "b" ]
     // at the end of a block
   }
 }
 agent_loop L{step a{x=1;y=tool.run{cmd:"x",output_var:y}->emit   V.C
 if x{emit A}else{emit B}}  success:f(x) g( )}
}
// at the end
"""

TIDY = """---
title:   x
---

// at the top
use std.training

system S {
    description: "d"
    // before a section
    trace_schema {
        variant V {
            case C { a: int, b: float in ms }
        }
    }

    knowledge {  // behind a brace
        fact slow(t: V.C) { return t.a < 3 && not (t.b > 5 ms) || !x }
        rule "R" {
            when: slow
            apply: [
                "a",  // first
                "b",
            ]
            // at the end of a block
        }
    }
    agent_loop L {
        step a {
            x = 1
            y = tool.run { cmd: "x", output_var: y } -> emit V.C
            if x {
                emit A
            } else {
                emit B
            }
        }
        success: f(x), g()
    }
}
// at the end
"""


def test_the_canonical_layout() -> None:
    assert format_text(UNTIDY) == TIDY
    assert format_text(TIDY) == TIDY


def test_what_does_not_fit_on_a_line_is_broken_at_its_joints() -> None:
    long = " and ".join(f"condition_number_{number}(t)" for number in range(8))
    formatted = format_text(f"system S {{ knowledge {{ fact f(t: V.C) {{ return {long} }} }} }}")

    assert "\n                and condition_number_7(t)\n" in formatted
    assert max(len(line) for line in formatted.split("\n")) <= 100
    assert format_text(formatted) == formatted


def test_an_empty_file_and_a_file_of_comments_are_formatted() -> None:
    assert format_text("") == ""
    assert format_text("\n\n") == ""
    assert format_text("  // a\n\n\n\n# b") == "// a\n\n# b\n"


def test_line_ends_of_other_systems_become_newlines() -> None:
    assert format_text("// a\r\nuse std.x\r\n") == "// a\nuse std.x\n"


def test_a_file_that_does_not_parse_is_left_alone() -> None:
    with pytest.raises(KnowledgeError, match="unclosed-bracket"):
        format_text("system S {")


@pytest.mark.parametrize("comment", ["/* it's */", '/* " */', "// it's\n", '# "x": y\n', "/* 'a\n : b' */"])
@pytest.mark.parametrize("key", ['"reason"', "'it'", '"""r"""', "reason", "12"])
def test_a_comment_with_quotes_before_a_colon_stays_one_comment(key: str, comment: str) -> None:
    source = f'system S {{ knowledge {{ rule "R" {{ when: "x" {key} {comment} : "y" }} }} }}'

    formatted = format_text(source)

    assert parse(formatted).module == parse(source).module
    assert parse(formatted).module.systems[0].rules[0].properties[0].key == key.strip("\"'")
    assert words([one.text for one in parse(formatted).comments]) == words([comment])
    assert format_text(formatted) == formatted
