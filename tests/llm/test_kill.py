"""A loop that is killed in the middle of a conversation goes on with it, and pays for no reply twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.schemas.llm import LlmQueried

PROGRAM = """system S {
  model { type Verdict matches { verdict: "good" | "bad" } }
  agent_loop L {
    step first: llm.query { prompt: "One?" output_var: one }
    step judge: llm.query { prompt: "Judge {{one}}." returns: "Verdict" output_var: judged }
    step keep: tool.write { path: "out.txt" content: "{{judged.verdict}}" }
    success: file_exists("out.txt")
  }
}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "morphogen.cli", "loop", *arguments]


def test_a_killed_conversation_goes_on_and_no_reply_is_paid_for_twice(
    settings: Settings, tmp_path: Path, endpoint: Any, answering: Any
) -> None:
    program, workspace = tmp_path / "p.mk", tmp_path / "workspace"
    program.write_text(PROGRAM)
    workspace.mkdir()
    late = answering("never seen")
    late.delay = 120.0
    endpoint.answers = [answering("uno"), answering("not an object"), late, answering('{"verdict": "good"}')]
    options = ["--backend", "openai", "-o", f"base_url={endpoint.url}", "-o", "model=m", "-o", "api_key_env=THE_KEY"]
    env = os.environ | {"THE_KEY": "sk-secret-9"}
    arguments = command("run", str(program), "--live", "--workspace", str(workspace), "--run", "r", *options)
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while len(endpoint.requests) < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)

    resumed = subprocess.run(command("resume", "r"), env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert (workspace / "out.txt").read_text() == "good"
    asked = [sent["messages"][-1]["content"] for sent in endpoint.requests]
    assert [text.startswith("One?") for text in asked] == [True, False, False, False]
    assert asked[1] == "Judge uno."
    assert asked[2] == asked[3]  # the one that was on its way when the process died
    assert "not an object" in asked[3]
    assert {sent["authorization"] for sent in endpoint.headers} == {"Bearer sk-secret-9"}
    with Bus.open(settings) as bus:
        queried = [one.event for one in bus.events(run="r", family="llm") if isinstance(one.event, LlmQueried)]
        assert [(one.step, one.attempt, one.fits) for one in queried] == [
            ("first", 0, None),
            ("judge", 0, False),
            ("judge", 1, True),
        ]
        assert not any(b"sk-secret-9" in message.data for batch in bus.read() for message in batch)
