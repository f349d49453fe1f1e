"""How an OpenAI-compatible endpoint is reached and asked. All of it stands in the log, so none of it may be a secret."""

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .budget import Price
from .errors import BackendError

_SECRET = re.compile(r"auth|cookie|secret|password|api[-_]?key|(^|[-_])token$", re.IGNORECASE)
FORMATS = ("json_schema", "json_object", "none")


class OpenAIOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `openai`."""

    base_url: str  # with its version: http://127.0.0.1:11434/v1
    model: str
    api_key_env: str | None = None  # name of the environment variable that holds the key
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    timeout: float = 120.0  # seconds for a whole reply
    connect_timeout: float = 10.0  # seconds
    retries: int = 4
    backoff: float = 0.5  # seconds before the first retry; doubles
    max_backoff: float = 30.0  # seconds; a longer Retry-After is an error at once
    max_reply_bytes: int = 4 << 20
    format: str | None = None  # how a schema is asked for: json_schema, json_object, none; default: whatever is taken
    max_tokens_field: str = "max_tokens"  # "max_completion_tokens" for endpoints that call it so
    headers: dict[str, str] = {}  # further headers; not for secrets, options stand in the log
    extra: dict[str, Any] = {}  # further fields of the request
    prices: dict[str, Price] = {}  # by model


def checked(options: OpenAIOptions) -> OpenAIOptions:
    """Return the options as they are. Raises BackendError for those that cannot work, or would put a secret into the log."""
    parts = urlsplit(options.base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BackendError(
            f"backend openai: base_url is http(s)://host[:port]/path, got {parts.scheme or 'no scheme'}", called=False
        )
    if parts.username is not None or parts.password is not None or parts.query:
        message = "backend openai: base_url carries no secrets and no query: name the key's variable in api_key_env"
        raise BackendError(message, called=False)
    secret = [name for name in (*options.headers, *options.extra) if _SECRET.search(name)]
    if secret:
        message = f"backend openai: {secret[0]} would stand in the log: name the key's variable in api_key_env"
        raise BackendError(message, called=False)
    if options.format is not None and options.format not in FORMATS:
        raise BackendError(
            f"backend openai: format is one of {', '.join(FORMATS)}, got {options.format!r}", called=False
        )
    if options.retries < 0 or options.timeout <= 0 or options.connect_timeout <= 0 or options.max_reply_bytes <= 0:
        raise BackendError("backend openai: retries, timeouts and max_reply_bytes are not negative", called=False)
    return options
