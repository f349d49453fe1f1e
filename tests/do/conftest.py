"""Goals to pursue, scripts that answer for a model, and a bus to record it all on; one broker for each module."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.dispatch import Act
from morphogen.consumers.executions import Trace, read_families
from morphogen.kernels.sandbox import Capabilities
from morphogen.producers.loops.goals import capabilities_of
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas.goals import signature, template


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A request as dispatch would make it."""

    id: str
    goal: str
    params: dict[str, Any] = field(default_factory=dict)
    capabilities: Capabilities
    environment: Mapping[str, str] = field(default_factory=dict)
    done: tuple[Act, ...] = ()

    @property
    def template(self) -> str:
        return template(self.goal, self.params)

    @property
    def signature(self) -> str:
        return signature(self.goal, self.params)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a broker that all tests of a module share."""
    found = Settings.from_environ({}, home=tmp_path_factory.mktemp("shared"))
    yield found
    brokers.down(found)


@pytest.fixture(scope="module")
def bus(own: Settings) -> Iterator[Bus]:
    with Bus.open(own) as opened:
        yield opened


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace with a table in it."""
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "shop.csv").write_text("item,price\ntea,3\nmilk,4\n")
    return folder


@pytest.fixture
def functions(bus: Bus, space: Path) -> Capabilities:
    return capabilities_of(Toolbox.standard(installed=False), Workspace.open(space), bus=bus)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What writes the replies of a model and returns the options of the backend that gives them."""

    def write(*replies: Mapping[str, Any] | tuple[Mapping[str, Any], Mapping[str, Any]], name: str = "replies") -> Any:
        path = tmp_path / f"{name}.json"
        entries = [
            {"json": one[0], **one[1]} if isinstance(one, tuple) else {"json": one, "call": at}
            for at, one in enumerate(replies, start=1)
        ]
        path.write_text(json.dumps({"reply": entries}))
        return {"file": str(path)}

    return write


def trace_of(bus: Bus, execution: str) -> Trace:
    """Return what the log holds of an execution."""
    found = read_families(bus).trace(execution)
    assert found is not None
    return found


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """A model that is paid for: an endpoint that gives the replies in the list, for 100 tokens in and 10 out each."""
    replies: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = {
                "choices": [{"message": {"role": "assistant", "content": replies.pop(0)}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                "model": "paid",
            }
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/v1", replies
        served.shutdown()
        thread.join()
