"""Any endpoint that speaks the OpenAI chat protocol: OpenAI itself, Ollama, vLLM, llama.cpp, a gateway.

A call is repeated where nothing was answered: the connection failed, or the status was 408, 409, 429 or 5xx. A reply that broke
off or took too long is not asked for again, because it may have been paid for. `Retry-After` is honoured. The key
comes from an environment variable at the moment of the call; it is never kept, logged or shown.
"""

import email.utils
import json
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .backend import Query, Reply
from .budget import Price
from .errors import BackendError
from .messages import messages_of
from .openai_options import FORMATS, OpenAIOptions, checked

if TYPE_CHECKING:
    import httpx

_AGAIN = {408, 409, 429, 500, 502, 503, 504, 529}
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "schema", "grammar", "guided")
_PASSED = ("temperature", "top_p", "max_tokens", "seed", "stop")


class _Refused(Exception):
    """The endpoint does not take the form in which the schema was asked for."""


class OpenAIBackend:
    """Asks an endpoint. `sleep`, `clock`, `chance` and `environ` come from outside in tests."""

    name = "openai"

    def __init__(
        self,
        options: OpenAIOptions,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            message = "backend openai needs httpx: pip install 'morphogen[loops]'"
            raise BackendError(message, called=False) from error
        self._options = checked(options)
        self._sleep, self._clock, self._chance, self._environ = sleep, clock, chance, environ
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        self._format = options.format or FORMATS[0]
        self._client: httpx.Client | None = None

    def price(self, query: Query) -> Price | None:
        """Return the price of the query's model as the options tell it, None where they do not."""
        return self._options.prices.get(self._model(query))

    def ask(self, query: Query) -> Reply:
        """Return the endpoint's reply. Raises BackendError with what it said."""
        wanted = self._format if query.schema is not None else "none"
        while True:
            try:
                reply = self._ask(query, wanted)
            except _Refused as refusal:
                later = FORMATS[FORMATS.index(wanted) + 1 :]
                if not later or self._options.format is not None:
                    raise BackendError(f"{self._place}: {refusal}") from None
                wanted = later[0]
                continue
            if query.schema is not None:
                self._format = wanted  # what was taken once is asked for from now on
            return reply

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def _place(self) -> str:
        return f"backend openai at {self._options.base_url}"

    def _model(self, query: Query) -> str:
        return str(query.options.get("model") or self._options.model)

    def _ask(self, query: Query, wanted: str) -> Reply:
        began = self._clock()
        deadline = began + float(query.options.get("timeout") or self._options.timeout)
        body = self._body(query, wanted)
        for retry in range(self._options.retries + 1):
            trouble, pause = self._try(body, deadline)
            if not isinstance(trouble, str):
                return self._reply(trouble, query, retry, began)
            if wanted != "none" and pause is None and any(word in trouble.lower() for word in _FORMAT_WORDS):
                raise _Refused(trouble)
            if pause is None:
                raise BackendError(f"{self._place}: {trouble}")
            pause = max(pause, self._backoff(retry))
            if retry == self._options.retries or pause > self._options.max_backoff or self._clock() + pause >= deadline:
                tries = f"{retry + 1} tries" if retry else "one try"
                wait = f"; it asks to wait {pause:.0f} s" if pause > self._options.max_backoff else ""
                raise BackendError(f"{self._place}: {trouble}; given up after {tries}{wait}")
            self._sleep(pause)
        raise AssertionError("the loop ends by a return or an error")

    def _backoff(self, retry: int) -> float:
        """Return the pause before the next try: doubling, and up to a quarter more, so that many do not come at once."""
        longest = min(self._options.backoff * 2.0**retry, self._options.max_backoff)
        return min(longest * (1 + self._chance() / 4), self._options.max_backoff)

    def _try(self, body: bytes, deadline: float) -> tuple[str | dict[str, Any], float | None]:
        """Return the answer as a dict; or what went wrong, and the least pause before a retry (None: no retry)."""
        import httpx

        left = deadline - self._clock()
        if left <= 0:
            return f"no time is left of {self._options.timeout:g} s", None
        patience = httpx.Timeout(left, connect=min(left, self._options.connect_timeout))
        try:
            with self._open().stream("POST", self._url, content=body, headers=self._headers(), timeout=patience) as got:
                return self._read(got, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return f"cannot connect: {self._safe(error)}", 0.0
        except httpx.TimeoutException as error:
            raise BackendError(f"{self._place}: no whole reply in time", may_cost=True) from error
        except httpx.HTTPError as error:
            message = f"{self._place}: the connection broke: {self._safe(error)}"
            raise BackendError(message, may_cost=True) from error
        except (httpx.InvalidURL, ValueError) as error:
            raise BackendError(f"{self._place}: {self._safe(error)}", called=False) from error

    def _read(self, got: "httpx.Response", deadline: float) -> tuple[str | dict[str, Any], float | None]:
        chunks: list[bytes] = []
        size = 0
        for chunk in got.iter_bytes():
            size += len(chunk)
            chunks.append(chunk)
            if size > self._options.max_reply_bytes:
                limit = self._options.max_reply_bytes
                raise BackendError(f"{self._place}: the answer is longer than {limit:,} bytes", may_cost=True)
            if self._clock() > deadline:
                raise BackendError(f"{self._place}: no whole reply in time", may_cost=True)
        text = b"".join(chunks)
        if got.status_code == 200:
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                content = None
            if isinstance(content, dict):
                return content, None
            raise BackendError(
                f"{self._place}: answered with what is no JSON object: {self._shown(text)}", may_cost=True
            )
        said = f"status {got.status_code}: {self._said(text)}"
        if got.status_code in _AGAIN:
            about_format = got.status_code == 500 and any(word in said.lower() for word in _FORMAT_WORDS)
            return said, None if about_format else _retry_after(got.headers.get("retry-after"))
        return said + _ADVICE.get(got.status_code, ""), None

    def _reply(self, content: dict[str, Any], query: Query, retries: int, began: float) -> Reply:
        try:
            choice = content["choices"][0]
            message = choice["message"]
            text = message.get("content")
            finish = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            shown = self._shown(json.dumps(content).encode())
            raise BackendError(f"{self._place}: the answer holds no message: {shown}", may_cost=True) from error
        if not isinstance(text, str):
            why = message.get("refusal") or f"finish_reason {finish!r}"
            raise BackendError(
                f"{self._place}: the model gave no text: {self._shown(str(why).encode())}", may_cost=True
            )
        usage = content.get("usage") if isinstance(content.get("usage"), dict) else {}
        tokens_in, tokens_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        price = self.price(query)
        known = price is not None and tokens_in is not None and tokens_out is not None
        return Reply(
            text,
            tokens_in,
            tokens_out,
            price.of(tokens_in, tokens_out) if known else None,  # type: ignore[union-attr, arg-type]
            str(content.get("model") or self._model(query)),
            int((self._clock() - began) * 1e9),
            retries,
            finish if isinstance(finish, str) else None,
        )

    def _body(self, query: Query, wanted: str) -> bytes:
        body: dict[str, Any] = dict(self._options.extra)
        body |= {"model": self._model(query), "messages": messages_of(query), "stream": False}
        for name in _PASSED:
            value = query.options.get(name)
            value = getattr(self._options, name) if value is None else value
            if value is not None:
                body[self._options.max_tokens_field if name == "max_tokens" else name] = value
        if wanted == "json_schema":
            form = {"name": "answer", "schema": query.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif wanted == "json_object":  # llama.cpp and its kin take the schema here
            body["response_format"] = {"type": "json_object", "schema": query.schema}
        try:
            return json.dumps(body, allow_nan=False).encode("ascii")
        except ValueError as error:
            raise BackendError(f"backend openai: an option is no JSON: {error}", called=False) from error

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", **self._options.headers}
        key = self._key()
        return headers | ({"authorization": f"Bearer {key}"} if key else {})

    def _key(self) -> str | None:
        name = self._options.api_key_env
        if name is None:
            return None
        key = self._environ.get(name, "").strip()
        if not key:
            raise BackendError(f"backend openai: the environment variable {name} holds no key", called=False)
        if not key.isascii() or not key.isprintable():
            raise BackendError(f"backend openai: {name} holds what cannot be a key", called=False)
        return key

    def _open(self) -> "httpx.Client":
        if self._client is None:
            import httpx

            self._client = httpx.Client(follow_redirects=False)
        return self._client

    def _said(self, text: bytes) -> str:
        """Return what an error body says, in one line."""
        try:
            content = json.loads(text)
            error = content.get("error", content.get("detail", content))
            said = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, RecursionError, AttributeError):
            return self._shown(text)
        return self._shown((said if isinstance(said, str) else json.dumps(said)).encode("utf-8", "replace"))

    def _shown(self, text: bytes) -> str:
        line = " ".join(text.decode("utf-8", "replace").split())
        line = self._hidden(line)
        return (line if len(line) <= 300 else f"{line[:297]}...") or "an empty body"

    def _safe(self, error: BaseException) -> str:
        return self._hidden(" ".join(str(error).split()) or type(error).__name__)

    def _hidden(self, line: str) -> str:
        name = self._options.api_key_env
        key = self._environ.get(name, "").strip() if name else ""
        return line.replace(key, "***") if key else line


_ADVICE = {
    401: "; is the key right? The option api_key_env names its variable",
    403: "; the key may not use this model",
    404: "; is base_url right (it ends with the version, such as /v1), and the model's name?",
    413: "; the prompt is too long",
}


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _retry_after(value: str | None, now: Callable[[], float] = time.time) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or as a date; 0 where it says nothing."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0  # noqa: PLR0124  NaN is the one that differs from itself
