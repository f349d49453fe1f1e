"""Compile what a training step waits for, where there is a C compiler; without one the same is done in Python.

A wheel is then for one platform and every Python from 3.11 on (the stable interface), else for all.
An editable install puts each library beside its source.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = (Path("bus/spool/_records.c"), Path("producers/watch/_reading.c"))


class CompileHook(BuildHookInterface[Any]):
    """Adds the libraries to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        root = Path(self.root)
        if self.target_name != "wheel" or os.environ.get("MORPHOGEN_NO_COMPILER"):
            return
        editable = version == "editable"
        self._folder = tempfile.TemporaryDirectory()  # lives as long as this hook, so until the wheel is made
        for source in SOURCES:
            library = source.with_suffix(".abi3.so")
            made = root / library if editable else Path(self._folder.name, library.name)
            problem = compiled(root / source, made)
            if problem is not None:
                self.app.display_warning(f"{source} is not compiled and will cost more: {problem}")
            elif not editable:
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["pure_python"] = False
                build_data["tag"] = f"cp311-abi3-{platform}"
                build_data["force_include"][str(made)] = f"morphogen/{library.as_posix()}"


def compiled(source: Path, library: Path) -> str | None:
    """Compile for this Python; return why it could not be done, None where it was."""
    if sys.platform == "win32":
        return "this is only done where there is a C compiler called cc"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    made = library.with_name(f"{library.name}.{os.getpid()}")
    command = [
        *(os.environ.get("CC") or "cc").split(),
        *("-std=gnu11", "-O3", "-fno-math-errno", "-fPIC", "-shared", f'-DSOURCE="{digest}"'),
        *(f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")),
        *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []),
        *(str(source), "-o", str(made), "-lm"),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        made.replace(library)  # one that is in use stays whole
    except subprocess.CalledProcessError as error:
        said: list[str] = error.stderr.splitlines()
        lines = [line for line in said if "error" in line] or [f"{command[0]} failed"]
        return lines[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        made.unlink(missing_ok=True)
    return None
