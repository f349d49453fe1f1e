"""What a run was started with: code, machine, packages. Reads only; secrets are never looked at."""

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from morphogen.schemas import plain

# Only variables that say where and how a job runs; everything else may hold a secret.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "MKL_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONHASHSEED", "RANK", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID",
    "SLURM_JOB_NAME", "SLURM_NODELIST", "SLURM_PROCID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID",
    "WORLD_SIZE",
)  # fmt: skip
_PACKAGES = ("torch", "numpy", "jax", "tensorflow", "transformers", "lightning", "accelerate", "keras", "morphogen")
_GIT_SECONDS = 1.0


def describe(env: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Return the fields of `RunStarted` that the process itself can tell; what cannot be found out is None."""
    env = os.environ if env is None else env
    commit, dirty = git_state(folder or Path())
    return {
        "host": socket.gethostname(),
        "hosts": hosts(env),
        "pid": os.getpid(),
        "argv": plain(sys.argv),
        "git_commit": commit,
        "git_dirty": dirty,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "environment": plain({name: env[name] for name in _VARIABLES if name in env}),
        "world_size": _integer(env.get("WORLD_SIZE") or env.get("SLURM_NTASKS")),
    }


def hosts(env: Mapping[str, str]) -> list[str]:
    """Return the hosts that the job's launcher names, else this one alone."""
    named = env.get("SLURM_NODELIST") or env.get("MASTER_ADDR")
    here = socket.gethostname()
    return [here] if not named or named in {here, "localhost", "127.0.0.1"} else [named, here]


def versions() -> dict[str, str]:
    """Return the versions of the training packages that are loaded already; nothing is imported for it."""
    found = {}
    for name in _PACKAGES:
        if name in sys.modules:
            try:
                found[name] = metadata.version(name)
            except (metadata.PackageNotFoundError, OSError):  # its files cannot be read
                found[name] = str(getattr(sys.modules[name], "__dict__", {}).get("__version__", "unknown"))
    return found


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return (commit, dirty) of the checkout around `folder`; (None, None) where there is none or git is slow."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def rank_of(env: Mapping[str, str]) -> int:
    """Return this process's rank as its launcher tells it, 0 where there is no launcher."""
    for name in ("MORPHOGEN_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        rank = _integer(env.get(name))
        if rank is not None and rank >= 0:
            return rank
    return 0


def attempt_of(env: Mapping[str, str]) -> int | None:
    """Return the attempt that the environment names (MORPHOGEN_ATTEMPT), None where the next free one is to be taken."""
    attempt = _integer(env.get("MORPHOGEN_ATTEMPT"))
    return attempt if attempt is not None and attempt >= 1 else None


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of files are bytes
            timeout=_GIT_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
