"""A real client talks to the language server over standard input and output."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

SHARED = """system Shared {
  trace_schema { variant Item { case Perf { latency: float in ms, name: string } } }
  knowledge { fact slow(t: Perf) { return t.latency > 3 s } }
}
"""
USER = """use "shared.mk"
system User {
  // 🚀 emoji take two units of UTF-16
  knowledge { rule "🚀" { when: slow apply: "stop" } fact mine(t: Perf) { return slow(t) && t.latency > 9 } }
  agent_loop L {
    step a { out = tool.run { cmd: "echo {{greeting}}" } }
    step b: tool.write { path: "x" content: out }
  }
}
"""


class Client:
    """Speaks JSON-RPC with a server process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "morphogen.cli", "know", "lsp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.messages: Queue[dict[str, Any]] = Queue()
        self.number = 0
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while header := self.process.stdout.readline():
            length = int(header.split(b":")[1])
            while self.process.stdout.readline().strip():
                pass
            self.messages.put(json.loads(self.process.stdout.read(length)))

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self.process.stdin.flush()

    def notify(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, params: Any = None) -> Any:
        self.number += 1
        self._send({"id": self.number, "method": method, "params": params})
        while True:
            message = self.messages.get(timeout=120)
            if message.get("id") == self.number and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def diagnostics(self, name: str) -> list[dict[str, Any]]:
        """Return the next diagnostics of a file."""
        while True:
            message = self.messages.get(timeout=120)
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == self.uri(
                name
            ):
                found: list[dict[str, Any]] = message["params"]["diagnostics"]
                return found

    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        self.notify(
            "textDocument/didOpen",
            {"textDocument": {"uri": self.uri(name), "languageId": "mk", "version": 1, "text": text}},
        )
        return self.diagnostics(name)

    def at(self, name: str, text: str, word: str, occurrence: int = 0) -> dict[str, Any]:
        """Return the parameters for asking about a word of a text."""
        offset = -1
        for _ in range(occurrence + 1):
            offset = text.index(word, offset + 1)
        line = text.count("\n", 0, offset)
        column = len(text[text.rfind("\n", 0, offset) + 1 : offset].encode("utf-16-le")) // 2
        return {"textDocument": {"uri": self.uri(name)}, "position": {"line": line, "character": column}}

    def stop(self) -> None:
        self.ask("shutdown")
        self.notify("exit", None)
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("lsp")
    (folder / "shared.mk").write_text(SHARED)
    made = Client(folder)
    try:
        found = made.ask("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        assert {"hoverProvider", "definitionProvider", "completionProvider", "documentFormattingProvider"} <= set(
            found["capabilities"]
        )
        assert found["capabilities"]["textDocumentSync"]["change"] == 1  # whole texts
        made.notify("initialized", {})
        yield made
        made.stop()
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdin, made.process.stdout, made.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def user(client: Client) -> Iterator[list[dict[str, Any]]]:
    yield client.open("user.mk", USER)
    client.notify("textDocument/didClose", {"textDocument": {"uri": client.uri("user.mk")}})
    assert client.diagnostics("user.mk") == []


def test_diagnostics_come_when_a_file_opens(client: Client, user: list[dict[str, Any]]) -> None:
    (found,) = user

    assert (found["code"], found["severity"], found["source"]) == ("K101", 1, "morphogen")
    start = client.at("user.mk", USER, "greeting")["position"]
    assert found["range"] == {"start": start, "end": {**start, "character": start["character"] + len("greeting")}}


def test_diagnostics_come_as_one_types(client: Client) -> None:
    text = "system S { }"
    assert client.open("typed.mk", text) == []

    client.notify(
        "textDocument/didChange",
        {
            "textDocument": {"uri": client.uri("typed.mk"), "version": 2},
            "contentChanges": [{"text": "system S { view v { } }"}],
        },
    )

    assert [one["code"] for one in client.diagnostics("typed.mk")] == ["K510"]


def test_columns_are_those_of_the_client_after_wide_characters(client: Client) -> None:
    line = 'system S { knowledge { rule "🚀🚀" { when: nothing apply: "x" } } }'

    (found,) = client.open("wide.mk", line)

    column = len(line[: line.index("nothing")].encode("utf-16-le")) // 2
    assert found["range"]["start"] == {"line": 0, "character": column}
    assert found["range"]["end"]["character"] == column + len("nothing")


@pytest.mark.parametrize(
    ("word", "occurrence", "wanted"),
    [
        ("slow apply", 0, "fact Shared.slow"),
        ("latency", 0, "float in ms (time)"),
        ("Perf", 0, "case Shared.Perf"),
        ("t.latency", 0, "the item of `Shared.Perf`"),
        ("tool.run", 0, "Run a program"),
        ("run {", 0, "Run a program"),
        ("cmd", 0, "Command line or argument vector"),
        ("🚀 emoji", 0, None),
        ("out }", 0, "the result of an action, line 6"),
        ("mine", 0, "fact User.mine"),
    ],
)
def test_hovering_says_what_a_name_is(
    client: Client, user: object, word: str, occurrence: int, wanted: str | None
) -> None:
    found = client.ask("textDocument/hover", client.at("user.mk", USER, word, occurrence))

    assert found is None if wanted is None else wanted in found["contents"]["value"]


@pytest.mark.parametrize(
    ("word", "occurrence", "file", "text", "target"),
    [
        ("slow apply", 0, "shared.mk", SHARED, "slow(t"),
        ("latency", 0, "shared.mk", SHARED, "latency: float"),
        ("Perf)", 0, "shared.mk", SHARED, "Perf {"),
        ("mine", 0, "user.mk", USER, "mine(t"),
        ("out }", 0, "user.mk", USER, "out = tool"),
        ('"shared.mk"', 0, "shared.mk", SHARED, "system"),
    ],
)
def test_definitions_are_found_also_in_used_files(
    client: Client, user: object, word: str, occurrence: int, file: str, text: str, target: str
) -> None:
    found = client.ask("textDocument/definition", client.at("user.mk", USER, word, occurrence))

    assert found["uri"] == client.uri(file)
    assert found["range"]["start"] == client.at(file, text, target)["position"]


def labels(found: Any) -> list[str]:
    return [one["label"] for one in found["items"]]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("system S { trace_schema { variant V { case C { x: int, y: float in | } } } }", {"ms", "GB/s"}),
        (
            "system S { trace_schema { variant V { case C { x: int } } } knowledge { fact f(t: C) { return t.| > 1 } } }",
            {"x"},
        ),
        ("task T { step s: tool.| }", {"run", "read", "write"}),
        ('task T { step s: tool.run { cmd: "x" | } }', {"timeout", "shell", "on_failure"}),
        ("system S { agent_loop L { step s { x = trace.| } } }", {"latest", "all"}),
        (
            "system S { trace_schema { variant V { case C { x: int } } } knowledge { fact f(t: V.|) { return t.x > 1 } } }",
            {"C"},
        ),
        ("system S { knowledge { fact f | } }", {"rule", "avg", "fact"}),
        ("use std.|", set()),
    ],
)
def test_completion_offers_what_could_stand_there(client: Client, typed: str, wanted: set[str]) -> None:
    text = typed.replace("|", "")
    name = f"complete{abs(hash(typed))}.mk"
    client.open(name, text)

    found = client.ask(
        "textDocument/completion",
        {"textDocument": {"uri": client.uri(name)}, "position": {"line": 0, "character": typed.index("|")}},
    )

    assert wanted <= set(labels(found))


def test_formatting_gives_one_edit_and_then_none(client: Client) -> None:
    client.open("plain.mk", "system   S{view v{sql:'select 1'}}")
    options = {"tabSize": 2, "insertSpaces": True}
    asked = {"textDocument": {"uri": client.uri("plain.mk")}, "options": options}

    (edit,) = client.ask("textDocument/formatting", asked)
    client.open("formatted.mk", edit["newText"])

    assert edit["newText"].startswith("system S {\n")
    assert client.ask("textDocument/formatting", {**asked, "textDocument": {"uri": client.uri("formatted.mk")}}) == []


def test_formatting_leaves_what_does_not_parse(client: Client) -> None:
    client.open("broken.mk", "system S {")

    asked = {"textDocument": {"uri": client.uri("broken.mk")}, "options": {"tabSize": 2, "insertSpaces": True}}

    assert client.ask("textDocument/formatting", asked) is None


def test_odd_texts_and_places_bring_no_error(client: Client) -> None:
    for place, text in enumerate(
        (
            "",
            "\n",
            "\ufeff",
            "🚀",
            "use",
            'use "',
            "system S { knowledge { fact f(",
            "task T { step s: tool.run {",
            "}}}}",
        )
    ):
        name = f"odd{place}.mk"
        client.open(name, text)
        here = {"textDocument": {"uri": client.uri(name)}, "position": {"line": 0, "character": 9}}
        for method in ("hover", "definition", "completion"):
            client.ask(f"textDocument/{method}", here)

    with pytest.raises(Empty):
        client.messages.get_nowait()


@pytest.mark.parametrize("odd", ["\u2028", "\x0c", "\x85", "\x0b"])
def test_only_newlines_end_a_line(client: Client, odd: str) -> None:
    """Python parts text at characters that are no ends of lines to an editor."""
    before = f"// a{odd}b\r\n// c\n"
    (found,) = client.open("odd.mk", before + "system S { knowledge { fact f(t: Prf) { return t.x > 1 } } }\n")
    asked = {"textDocument": {"uri": client.uri("odd.mk")}, "position": {"line": 2, "character": 28}}

    assert found["range"]["start"]["line"] == 2
    assert "fact S.f" in json.dumps(client.ask("textDocument/hover", asked))


def test_a_finding_at_the_end_of_a_text_is_in_its_last_line(client: Client) -> None:
    found = client.open("end.mk", "// c\nsystem S {")

    assert found
    assert {one["range"][end]["line"] for one in found for end in ("start", "end")} == {1}
