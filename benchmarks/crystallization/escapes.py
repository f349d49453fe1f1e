"""The corpus of escapes, tried as the tests try it: the static layer off, dangerous modules imported for the attacker."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOM = Path(__file__).parents[2] / "tests" / "sandbox"


def escapes() -> dict[str, Any]:
    """Run the corpus; return how many attacks there are, what was tried, and how many assertions of their failure failed."""
    attacks = len(list((ROOM / "corpus").glob("*.tool")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOM / "test_corpus.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOM.parents[1],
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    counted = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    escaped = counted.get("failed", 0) + counted.get("error", 0)
    return {
        "attacks": attacks,
        "checks": counted.get("passed", 0) + escaped,
        "skipped": counted.get("skipped", 0),
        "escaped": escaped if counted.get("passed") else None,  # None: nothing was tried
        "said": last,
    }
