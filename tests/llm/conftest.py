"""A tiny model in a file, a real llama.cpp server that serves it, and an endpoint that misbehaves on demand."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTH, LAYERS, HEADS, FEED, CONTEXT = 32, 2, 4, 64, 2048
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def write_tiny_llama(path: Path, seed: int = 7) -> Path:
    """Write a llama with random weights, two layers, one token a byte: it babbles, always the same way.

    The vocabulary: <unk>, <s>, </s>, 256 bytes, and printable ASCII as pieces.
    """
    import gguf

    words = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    pieces = ["\u2581", *(chr(code) for code in range(33, 127))]
    words += [piece.encode() for piece in pieces]
    kinds += [gguf.TokenType.NORMAL] * len(pieces)
    random = np.random.default_rng(seed)

    def weight(*shape: int) -> "np.ndarray[Any, Any]":
        return (random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * 259 + [-1.0] * len(pieces))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", weight(len(words), WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", weight(len(words), WIDTH) * 4)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        writer.add_tensor(at + "attn_norm.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(at + "ffn_norm.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{at}{name}.weight", weight(WIDTH, WIDTH))
        writer.add_tensor(at + "ffn_gate.weight", weight(FEED, WIDTH))
        writer.add_tensor(at + "ffn_up.weight", weight(FEED, WIDTH))
        writer.add_tensor(at + "ffn_down.weight", weight(WIDTH, FEED))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    pytest.importorskip("gguf", reason="the gguf package is not installed, so no model can be made")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def llama_server(tiny_model: Path) -> Iterator[str]:
    """The base URL of a real llama.cpp server with the tiny model."""
    pytest.importorskip("llama_cpp.server.app", reason="the server of llama-cpp-python is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--model", str(tiny_model), "--port", str(port), "--n_ctx", "1024", "--model_alias", "tiny"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "llama_cpp.server", *arguments, "--verbose", "False"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _until_up(process, url)
        yield url
    finally:
        process.kill()
        process.communicate()


def _until_up(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {process.stderr.read()[-2000:]!r}" if process.stderr else "")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/models", timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not come up in a minute")


@dataclass
class Answer:
    """What the endpoint does with one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before the status
    drip: float = 0.0  # seconds between the bytes of the body
    cut: bool = False  # close the connection in the middle of the body


def said(text: str, **usage: int) -> Answer:
    """Return a good answer of the chat protocol."""
    content: dict[str, Any] = {
        "model": "served",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }
    if usage:
        content["usage"] = usage
    return Answer(body=json.dumps(content).encode())


class Endpoint:
    """A local server whose answers a test lists beforehand; the last one is given for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [said("fine")]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._stop = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                endpoint.requests.append(json.loads(self.rfile.read(size)))
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                answers = endpoint.answers
                endpoint.give(self, answers.pop(0) if len(answers) > 1 else answers[0])

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def give(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        """Write an answer, as slowly or brokenly as it says."""
        self._stop.wait(answer.delay)
        with contextlib.suppress(OSError):
            handler.send_response(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if answer.cut:
                handler.wfile.write(answer.body[: len(answer.body) // 2])
                handler.close_connection = True
                return
            if not answer.drip:
                handler.wfile.write(answer.body)
                return
            for byte in answer.body:
                if self._stop.wait(answer.drip):
                    return
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that answers as the test tells it to."""
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture
def answering() -> Callable[..., Answer]:
    """Make a good answer: answering(text, prompt_tokens=..., completion_tokens=...)."""
    return said


@pytest.fixture
def faulty() -> Callable[..., Answer]:
    """Make any other answer: faulty(status=429, body=b"...", headers={...}, delay=..., drip=..., cut=True)."""
    return Answer
