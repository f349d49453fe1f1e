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
_SCHEMES = ("nats", "tls", "ws", "wss")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_NOT_IN_A_HOME = re.compile(r"[?\\]")
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
            urls=_urls(url, "--url") if url else _urls(env.get("MORPHOGEN_URL", ""), "MORPHOGEN_URL"),
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
        return Path(platformdirs.user_data_dir("morphogen"))
    try:
        home = Path(value).expanduser().absolute()
        other = home.exists() and not home.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a zero byte
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{name} cannot be used: {str(value)!r} ({reason}); name a folder or leave it out"
        ) from None
    if other:
        raise SettingsError(f"{name} is not a folder: {home}; name a folder or leave it out")
    if bad := _NOT_IN_A_HOME.search(str(home)):
        raise SettingsError(f"{name} holds a {bad[0]!r}, where DuckDB cuts a path: {home}; name a folder without")
    return home


def _urls(text: str, name: str) -> tuple[str, ...]:
    urls = []
    for part in text.split(","):
        url = part.strip()
        if not url:
            continue
        if "://" not in url:
            url = f"nats://{url}"
        try:
            parts = urlsplit(url)
            valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0 and len(url.split()) == 1
        except ValueError:
            valid = False
        if not valid:
            shown = part.rpartition("@")[2].strip()  # a password is nobody's business
            raise SettingsError(f"{name} has a bad address {shown!r}; write nats://host:port")
        urls.append(url if parts.port else f"{url.rstrip('/')}:4222")
    return tuple(urls)


def _creds(value: str | Path | None, name: str) -> Path | None:
    if value is None or not str(value).strip():
        return None
    try:
        path = Path(value).expanduser().absolute()
        readable = os.access(path, os.R_OK) and path.is_file()
    except (OSError, RuntimeError, ValueError):
        path, readable = Path(value), False
    if not readable:
        raise SettingsError(f"{name} cannot be read: {path}; name a readable .creds file")
    return path


def _spool_limit(text: str | None) -> int:
    if text is None or not text.strip():
        return DEFAULT_SPOOL_LIMIT
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size < _SMALLEST_SPOOL:
        raise SettingsError(
            f"MORPHOGEN_SPOOL_LIMIT is {text!r}; write a size of at least 1 MiB, such as 1073741824 or 2GiB"
        )
    return size
