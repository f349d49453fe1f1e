"""Where data lives and which broker to use: the one place that reads the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from .errors import SettingsError

DEFAULT_SPOOL_LIMIT = 1 << 30
_SMALLEST_SPOOL = 1 << 20
_LARGEST_SPOOL = 1 << 62
_SCHEMES = ("nats", "tls", "ws", "wss")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_CUTS = "?\\"
_NOT_IN_A_HOME = re.compile(r"[?\\\0\ud800-\udfff]")
_PORT = re.compile(r"^\w+://[^:/]*(:\d+)?(/|$)|\]")
_WITH_USER = "write nats://user:password@host:port, and a / ? # , or @ in a user or password as %2F %3F %23 %2C or %40"
_CREDS = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the data folder and the way to the broker.

    No `urls` means the embedded broker of `home`. `spool_limit` is in bytes.
    """

    home: Path
    urls: tuple[str, ...] = ()
    creds: Path | None = None
    token: str | None = None
    spool_limit: int = DEFAULT_SPOOL_LIMIT

    @classmethod
    def from_environ(
        cls,
        env: Mapping[str, str] = os.environ,
        *,
        url: str | None = None,
        creds: str | Path | None = None,
        home: str | Path | None = None,
    ) -> "Settings":
        """Read MORPHOGEN_* variables; an argument wins. A bad value raises SettingsError."""
        return cls(
            home=_home(home, "--home")
            if str(home or "").strip()
            else _home(env.get("MORPHOGEN_HOME"), "MORPHOGEN_HOME"),
            urls=_urls(url, "--url") if (url or "").strip() else _urls(env.get("MORPHOGEN_URL"), "MORPHOGEN_URL"),
            creds=_creds(creds, "--creds")
            if str(creds or "").strip()
            else _creds(env.get("MORPHOGEN_CREDS"), "MORPHOGEN_CREDS"),
            token=env.get("MORPHOGEN_TOKEN") or None,
            spool_limit=_spool_limit(env.get("MORPHOGEN_SPOOL_LIMIT")),
        )

    @property
    def embedded(self) -> bool:
        """Tell whether the broker is the embedded one."""
        return not self.urls

    @property
    def broker_dir(self) -> Path:
        """Folder of the embedded broker: configuration, token, log, and JetStream store."""
        return self.home / "broker"

    @property
    def spool_dir(self) -> Path:
        """Folder of what was logged and not yet acknowledged."""
        return self.home / "spool"

    @property
    def attempts_dir(self) -> Path:
        """Folder that counts the attempts of each run."""
        return self.home / "attempts"

    @property
    def projections_dir(self) -> Path:
        """Folder of the DuckDB files."""
        return self.home / "projections"

    @property
    def archive_dir(self) -> Path:
        """Folder of the Parquet archive."""
        return self.home / "archive"


def _home(value: str | Path | None, name: str) -> Path:
    if value is None or not str(value).strip():
        value, name = _users_folder(), "the user's data folder"
    try:
        home = Path(value).expanduser().absolute()
        nearest = next(one for one in (home, *home.parents) if one.exists() or one.is_symlink())
        wrong = None if nearest.is_dir() else "leads nowhere" if not nearest.exists() else "is not a folder"
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a zero byte
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{name} cannot be used: {str(value)!r} ({reason}); name a folder or leave it out"
        ) from None
    if bad := _NOT_IN_A_HOME.search(str(home)):
        reason = "where DuckDB cuts a path" if bad[0] in _CUTS else "which is no text"
        raise SettingsError(f"{name} holds a {bad[0]!r}, {reason}: {str(home)!r}; name a folder without")
    if wrong:
        raise SettingsError(f"{name} cannot be used: {nearest} {wrong}; name a folder or leave it out")
    return home


def _users_folder() -> str:
    try:
        return platformdirs.user_data_dir("morphogen")
    except RuntimeError:  # a user who is in no list, without HOME
        raise SettingsError("no home directory is known: set MORPHOGEN_HOME to a folder") from None


def _urls(text: str | None, name: str) -> tuple[str, ...]:
    if text is None or not text.strip():
        return ()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    secret = "@" in text  # a password is nobody's business, wherever a wrong character has ended it
    if any("@" in part and "://" not in part for part in parts[1:]):
        raise SettingsError(f"{name} has a bad address; {_WITH_USER}")
    urls = tuple(_url(part, name, secret) for part in parts)
    if not urls:
        raise SettingsError(f"{name} holds no address: {text!r}; write nats://host:port or leave it out")
    return urls


def _url(text: str, name: str, secret: bool) -> str:
    """Return an address with its scheme in small letters and its port, both of which nats-py wants so."""
    url = text if "://" in text else f"nats://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if "@" in parts.path + parts.query + parts.fragment:
            host = None
    except ValueError:
        host, secret = None, secret or not _PORT.search(url)  # user:password without a host, perhaps
    if not host or port == 0 or parts.scheme not in _SCHEMES or " " in url or not url.isprintable():
        if secret:
            raise SettingsError(f"{name} has a bad address; {_WITH_USER}")
        raise SettingsError(f"{name} has a bad address {text!r}; write nats://host:port")
    who = "".join(parts.netloc.rpartition("@")[:2])
    place = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{who}{place}:{port or 4222}", path=parts.path.rstrip("/")).geturl()


def _creds(value: str | Path | None, name: str) -> Path | None:
    if value is None or not str(value).strip():
        return None
    try:
        path = Path(value).expanduser().absolute()
        held = path.read_bytes() if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        path, held = Path(value), None
    if held is None:
        raise SettingsError(f"{name} cannot be read: {path}; name a readable .creds file")
    if not all(mark in held for mark in _CREDS):
        raise SettingsError(f"{name} is no credentials file: {path}; name one with a user's JWT and its seed")
    return path


def _spool_limit(text: str | None) -> int:
    if text is None or not text.strip():
        return DEFAULT_SPOOL_LIMIT
    match = _SIZE.fullmatch(text.strip())
    size = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not _SMALLEST_SPOOL <= size <= _LARGEST_SPOOL:
        raise SettingsError(
            f"MORPHOGEN_SPOOL_LIMIT is {text!r:.60}; write a size from 1 MiB to 4 EiB, such as 1073741824 or 2GiB"
        )
    return int(size)
