"""Where the tasks happen: a folder of files, a server on loopback, recorded runs asked in SQL. All of it is real.

A world is made for one family. `twin()` copies it, so that the same task can be done twice from the same state; what is
posted to the server is kept by the world that it was posted from.
"""

import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from morphogen.kernels.sandbox import Capabilities, Declared, Workspace

Rows = list[dict[str, Any]]
Ask = Callable[[str], Rows]


class Site:
    """A server on loopback: pages of JSON by path, what was posted, and faults that happen once when asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.posted: list[tuple[str, Any]] = []
        self._faults: dict[str, int] = {}
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            """Answers from the site's pages; every connection carries one request."""

            def do_GET(self) -> None:
                """Answer with a page, 404 where there is none, 503 where a fault is due."""
                status, value = site.answer(self.path)
                self._send(status, value)

            def do_POST(self) -> None:
                """Keep what is posted and number it."""
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
                with site._lock:
                    site.posted.append((self.path, body))
                self._send(200, {"accepted": True})

            def _send(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, Any]:
        """Return status and value for a path, and use up a fault."""
        with self._lock:
            if self._faults.get(path, 0):
                self._faults[path] -= 1
                return 503, {"error": "try again"}
            if path in self.pages:
                return 200, self.pages[path]
        return 404, {"error": "no such page"}

    def fail_once(self, path: str) -> None:
        """Answer the next request for a path with 503."""
        with self._lock:
            self._faults[path] = self._faults.get(path, 0) + 1

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class World:
    """One folder, the site and the log's tables, as the functions that an agent is given."""

    def __init__(self, folder: Path, site: Site, ask: Ask | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.site = site
        self.ask = ask
        self.state: dict[str, Any] = {}  # what only a misleading family's agent knows; no tool shows it
        tools: dict[str, Declared] = {
            "disk.size": Declared(self._size, "read"),
            "http.get": Declared(self._get, "read"),
            "http.post": Declared(self._post, "external"),
        }
        if ask is not None:
            tools["sql.query"] = Declared(self._query, "read")
        self.capabilities = Capabilities(files=Workspace(folder, write=True), tools=tools)

    def write(self, path: str, text: str) -> None:
        """Put a file into the folder, as whoever made the task does."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def twin(self, folder: Path) -> "World":
        """Return a copy of this world's files and state, with the same site and tables."""
        shutil.copytree(self.folder, folder)
        other = World(folder, self.site, self.ask)
        other.state = json.loads(json.dumps(self.state))
        return other

    def files(self) -> dict[str, bytes]:
        """Return all files by their path."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}  # fmt: skip

    def _size(self, path: str) -> int:
        target = (self.folder / path).resolve()
        if not target.is_relative_to(self.folder.resolve()) or not target.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        return target.stat().st_size

    def _query(self, query: str) -> Rows:
        assert self.ask is not None
        return self.ask(query)

    def _get(self, path: str) -> Any:
        return self._request(urllib.request.Request(self.site.url + path), path)

    def _post(self, path: str, body: Any) -> Any:
        data = json.dumps(body).encode()
        return self._request(urllib.request.Request(self.site.url + path, data=data), path)

    @staticmethod
    def _request(request: urllib.request.Request, path: str) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"{path} answered {error.code}") from None
