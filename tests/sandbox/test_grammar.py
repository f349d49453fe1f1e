"""The grammar: what it lets through, where it says no and how, and that it never fails in another way."""

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox import Sandbox, UnsafeTool, Value
from morphogen.kernels.sandbox.grammar import MAX_CHARS, check
from morphogen.kernels.sandbox.vocabulary import BUILTINS, MODULES, TABLE

from .canary import ATTACKS

GOOD = '''"""Count words and say which are common."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import datetime
from urllib.parse import quote

WORD = re.compile(r"[a-z]+")


def words(text: str) -> list[str]:
    """Split."""
    return [m.group() for m in WORD.finditer(text.lower())]


def run(text: str, top: int = 3, *, names: dict[str, int] | None = None) -> dict[str, object]:
    """Count."""
    if not isinstance(text, str):
        raise TypeError(f"text must be str, got {text!r:>10}")
    counted = Counter(words(text))
    total = 0
    for _, count in counted.items():
        total += count
    while total > 10**6:
        total //= 2
    try:
        when = datetime.fromisoformat("2026-01-02").isoformat()
    except (ValueError, KeyError) as error:
        when = str(error)
    first, *rest = sorted(counted, key=lambda word: (-counted[word], word))[:top]
    (size := len(rest))
    return {"first": first, "root": math.sqrt(total), "when": when, "size": size, "q": quote(first), "names": names}
'''


def test_a_tool_of_plain_python_passes_and_runs() -> None:
    found = check(GOOD, entry="run")

    assert found.functions == {"words": ("text",), "run": ("text", "top", "names")}
    assert found.modules == ("collections", "datetime", "math", "re", "urllib.parse")
    with Sandbox(own_interpreter=True) as sandbox:
        outcome = sandbox.run(GOOD, {"text": "to be or not to be"})
    assert outcome.error is None
    assert isinstance(outcome.value, dict)
    assert outcome.value["first"] == "be"


def test_tools_may_be_called_by_their_full_names_and_no_others() -> None:
    tools = ("files.read_text", "sql.query", "fetch")
    text = "def run():\n    return [files.read_text('a'), sql.query(text='x'), fetch('u')]\n"

    assert check(text, tools=tools)
    for bad in ("files.write_text('a', 'b')", "files", "[sql]", "sql.query.other", "fetch.x.y", "files['a']"):
        with pytest.raises(UnsafeTool):
            check(f"def run():\n    return {bad}\n", tools=tools)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("import os\n", (1, 1), "os cannot be imported"),
        ("from os import system\n", (1, 1), "os cannot be imported"),
        ("from . import x\n", (1, 1), "cannot be imported"),
        ("from math import *\n", (1, 1), "math.* is not listed"),
        ("import urllib.parse\n", (1, 1), "from urllib.parse import"),
        ("import json\nX = json.codecs\n", (2, 5), "json.codecs is not listed"),
        ("import json\nX = json\n", (2, 5), "used as a value"),
        ("import json\ndef run(json):\n    return 1\n", (2, 9), "name of a module"),
        ("import io as m\nimport math as m\n", (2, 1), "taken"),
        ("def run():\n    import math\n", (2, 5), "inside a function"),
        ("def run(x):\n    return x.__class__\n", (2, 12), "begins with an underscore"),
        ("def run(x):\n    return x.__\uff43lass__\n", (2, 12), "begins with an underscore"),
        ("def run(x):\n    return x.gi_frame\n", (2, 12), "leads out"),
        ("def run(x):\n    return '{0.a}'.format(x)\n", (2, 12), "use an f-string"),
        ("def run(x):\n    return getattr(x, 'a')\n", (2, 12), "name the attribute"),
        ("def run(x):\n    return eval(x)\n", (2, 12), "code is not made at run time"),
        ("def run(x):\n    return open(x)\n", (2, 12), "capabilities"),
        ("def run(x):\n    return __builtins__\n", (2, 12), "underscore"),
        ("def run(x):\n    return undefined\n", (2, 12), "not available"),
        ("def run(x):\n    global y\n", (2, 5), "Global is not part"),
        ("def run(x):\n    x.y = 1\n", (2, 5), "is changed"),
        ("class A:\n    pass\n", (1, 1), "stands at the top"),
        ("async def run():\n    pass\n", (1, 1), "stands at the top"),
        ("def run():\n    yield 1\n", (2, 5), "Yield is not part"),
        ("def run():\n    with x:\n        pass\n", (2, 5), "With is not part"),
        ("def run():\n    try:\n        pass\n    except:\n        pass\n", (4, 5), "takes everything"),
        ("def run():\n    try:\n        pass\n    except* ValueError:\n        pass\n", (2, 5), "TryStar is not part"),
        ("@staticmethod\ndef run():\n    pass\n", (2, 1), "decorator"),
        ("print(1)\n", (1, 1), "when the tool is loaded"),
        ("from datetime import datetime\ndef run():\n    return datetime.now()\n", (3, 12), "take the time"),
        ("def run():\n    return 'x' * 100000000\n", (2, 12), "grows"),
        ("def run():\n    return 9 ** 9 ** 9\n", (2, 12), "grows"),
        ("def run(:\n", (1, 9), "this is no Python"),
        ("def run():\n    return 1\0\n", (2, 13), "no source may hold"),
        ("x" * (MAX_CHARS + 1), (1, 1), "characters"),
        ("X = " + "(" * 90 + ")" * 90, (1, 65), "nested"),
        ("def open(x):\n    return x\n", (1, 1), "built-in name"),
        ("def f():\n    return ['\u00e9\u00e9', open]\n", (2, 19), "capabilities"),
        ("def f(\u00e9):\n    return 1\n", (1, 7), "not ASCII"),
    ],
)
def test_what_is_outside_is_told_with_its_place_and_what_to_do(text: str, place: tuple[int, int], words: str) -> None:
    with pytest.raises(UnsafeTool) as caught:
        check(text)

    assert (caught.value.line, caught.value.column) == place
    assert words in str(caught.value)
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_missing_entry_is_told() -> None:
    with pytest.raises(UnsafeTool, match="no function 'main'"):
        check("def run():\n    return 1\n", entry="main")


def test_every_name_of_the_table_is_there_and_is_no_module() -> None:
    source = (
        "import importlib, types\ndef run(table):\n    return [f'{m}.{n}' for m, names in table.items() for n in names"
    )
    source += " if isinstance(getattr(importlib.import_module(m), n), types.ModuleType)]\n"
    with Sandbox(pool=1, modules=(*MODULES, "importlib", "types")) as sandbox:
        table: dict[str | int, Value] = {module: list[Value](sorted(names)) for module, names in TABLE.items()}
        outcome = sandbox.run(source, {"table": table})

    assert (outcome.value, outcome.error) == ([], None)


def call(text: object) -> None:
    refusal: UnsafeTool | None = None
    try:
        check(text)  # type: ignore[arg-type]
    except UnsafeTool as found:
        refusal = found

    assert refusal is None or (refusal.line >= 1 and refusal.column >= 1 and "\n" not in str(refusal))


@given(st.text())
def test_any_text_is_judged_and_nothing_else_happens(text: str) -> None:
    call(text)


WORDS = [*sorted(BUILTINS)[:20], "def f():", "lambda x:", "for x in", "if", "else:", "(", ")", "[", "]", "{", "}", ".", ",",
         "=", "**", "*", "-", "not", "yield", "async", "await", "import", "from", "math", "__class__", "'", '"""', "f'{", "}'",
         "\n", "\n    ", "\t", "\\", "#", "0x", "1e999", "1j", "\u2028", "\ufeff", ":", ";", "@", "->", "match x:", "case", "\x0c"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_mixture_of_python_is_judged_and_nothing_else_happens(words: list[str]) -> None:
    call(" ".join(words))


@given(st.sampled_from(sorted(ATTACKS)), st.data())
def test_any_piece_of_an_attack_is_judged_and_nothing_else_happens(name: str, data: st.DataObject) -> None:
    text = ATTACKS[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    call(text[:start] + text[end:])


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(UnsafeTool):
        check(value)  # type: ignore[arg-type]


DEEP = [
    "X = " + "(" * 5000 + ")" * 5000,
    "X = " + "[" * 59 + "]" * 59,
    "X = " + "-" * 15000 + "1",
    "X = " + "- " * 9000 + "1",
    "X = " + "not " * 4900 + "1",
    "X = " + "1+" * 9900 + "1",
    "X = " + "a." * 9900 + "b",
    "X = a" + "[0]" * 6000,
    "X = a" + "()" * 9000,
    "X = " + "lambda:" * 2800 + "1",
    "X = " + "1 if 1 else " * 1600 + "1",
    "X = " + "1 < " * 4900 + "1",
    "X = " + "a and " * 3000 + "a",
    "X = " + "a**" * 6000 + "a",
    "X = " + "*" * 15000,
    "X = " + "await " * 3000 + "a",
    "X = f'" + "{x:" * 200 + "}" * 200 + "'",
    "def run():\n    if 1: pass\n" + "    elif 1: pass\n" * 3500,
    "\n".join(" " * i + "if 1:" for i in range(99)) + "\n" + " " * 99 + "pass",
    "\n".join(" " * i + "if 1:" for i in range(230)),
    "\n".join(" " * i + "def f():" for i in range(95)) + "\n" + " " * 95 + "pass",
    "X = " + "9" * 19000,
    "X = 0x" + "f" * 19000,
    "X = 1e" + "9" * 10000,
    "X = " + "'a' " * 4900,
    "@a\n" * 9000 + "def f(): pass",
    "a = " * 9000 + "1",
    "import " + ",".join(["math"] * 3000),
    "global " + ",".join(["a"] * 3000),
    "X: " + "a|" * 9000 + "a",
    "for x in " * 2000,
    "\\\n" * 30000,
    ";" * 19000,
    "\t \t" * 6000 + "x",
]


def test_deep_and_long_texts_end_neither_the_process_nor_a_thread_of_a_small_stack() -> None:
    ended: list[object] = []

    def judge() -> None:
        for text in DEEP:
            call(text)
        ended.append(True)

    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=judge)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)

    assert ended == [True]


def test_the_grammar_starts_no_process_and_imports_no_heavy_thing() -> None:
    code = "import sys; import morphogen.kernels.sandbox.grammar; print('torch' in sys.modules, 'numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert told.stdout == "False False\n"
