"""What the course of an execution may depend on, beside its parameters: named, and as text."""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

from morphogen.schemas.settling import settled


def environment_of(packages: Iterable[str] = (), own: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return the fingerprint: `python` (3.11), `platform` (linux-x86_64), `package.<name>` of each, and `own` as it is.

    `packages` are names, or one alone. A package that is not installed is `absent`. What is not named here does not guard
    a tool: name what matters.
    """
    major, minor, _ = platform.python_version_tuple()
    found = {"python": f"{major}.{minor}", "platform": f"{platform.system()}-{platform.machine()}".lower()}
    for package in [packages] if isinstance(packages, str) else packages:
        name = settled(str(package))
        try:
            found[f"package.{name}"] = metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):  # ValueError: that is no name of a package
            found[f"package.{name}"] = "absent"
    return found | {settled(str(name)): settled(str(value)) for name, value in (own or {}).items()}
