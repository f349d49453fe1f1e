"""`tool.http`: one request to a host that the workspace's policy allows."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from morphogen.schemas.knowledge.tools import TOOLS, Signature

from ..errors import ToolFailed, ToolRefused
from ..workspace import RESERVED
from .toolbox import ToolCall, ToolResult, limit

_TIMEOUT = 30.0  # seconds
_LARGEST = 1 << 20  # bytes of an answer
_SHOWN_HEADERS = ("content-type", "etag", "last-modified", "location", "retry-after")
_SAFE = frozenset({"GET", "HEAD"})
_PORTS = {"http": 80, "https": 443}


class Http:
    """Sends requests. Redirects are not followed: the next host may not be an allowed one."""

    signature: Signature = TOOLS["tool.http"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return read for GET and HEAD, else external."""
        return "read" if (arguments.get("method") or "GET") in _SAFE else "external"

    def plan(self, call: ToolCall) -> Any:
        """Return method and address."""
        return {"method": call.arguments["method"], "url": call.arguments["url"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Return status, headers and text. Raises ToolFailed for a status from 400 on, ToolRefused for a host not allowed."""
        try:
            import httpx
        except ImportError:
            raise ToolRefused("tool.http needs httpx: pip install 'morphogen[loops]'") from None
        arguments = call.arguments
        allow(arguments["url"], call.context.workspace.policy.hosts)
        largest = int(limit(call, "max_output", _LARGEST))
        timeout = limit(call, "timeout", _TIMEOUT)
        headers = {str(name): str(value) for name, value in (arguments.get("headers") or {}).items()}
        if arguments["method"] not in _SAFE:
            headers.setdefault("Idempotency-Key", call.key)
        began = time.monotonic_ns()
        body: dict[str, Any] = {}
        if arguments.get("json") is not None:
            body["json"] = arguments["json"]
        elif arguments.get("body") is not None:
            body["content"] = arguments["body"].encode()
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False) as client,
                client.stream(arguments["method"], arguments["url"], headers=headers, **body) as answer,
            ):
                data = bytearray()
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > largest:
                        raise ToolFailed(f"tool.http: the answer is larger than {largest:,} bytes: raise max_output")
                    if time.monotonic_ns() - began > timeout * 1e9:
                        raise ToolFailed(f"tool.http: no whole answer within {timeout:g} s")
                text = bytes(data).decode(answer.encoding or "utf-8", "replace")
        except httpx.HTTPError as error:
            raise ToolFailed(
                f"tool.http: {arguments['url']}: {' '.join(str(error).split()) or type(error).__name__}"
            ) from error
        except (httpx.InvalidURL, LookupError) as error:
            raise ToolRefused(f"tool.http: {arguments['url']}: {error}") from error
        shown = {name: answer.headers[name] for name in _SHOWN_HEADERS if name in answer.headers}
        result = ToolResult(
            output={"status": answer.status_code, "headers": shown, "text": text},
            text=text,
            resources={"status": answer.status_code, "bytes": len(data)},
            duration_ns=time.monotonic_ns() - began,
        )
        if answer.status_code >= 400:
            raise ToolFailed(f"tool.http: {arguments['url']} answered {answer.status_code}", result)
        return result


def allow(url: str, hosts: tuple[str, ...]) -> None:
    """Raise ToolRefused unless a host of the policy is that of the address: `name`, any port, or `name:port`."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise ToolRefused(f"tool.http: {url!r} is no address: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise ToolRefused(f"tool.http: {url!r} is no http or https address")
    if host not in hosts and f"{host}:{port}" not in hosts:
        raise ToolRefused(
            f'tool.http: {host} is not allowed here: put hosts = ["{host}"] into {RESERVED}/policy.toml of the workspace'
        )
