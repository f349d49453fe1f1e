"""Is what is known of tools a function of the log? Folded as it came, folded anew, as tables beside the live ones."""

import os
import subprocess
import sys
from typing import Any

from stage import Stage

from morphogen.consumers.crystallizer.past import Past
from morphogen.consumers.executions import Family


def rebuilt(stage: Stage, live: Past) -> dict[str, Any]:
    """Compare the fold that was kept up to date with a fresh one, and the live tables with a rebuild of all of them."""
    live.catch_up(stage.bus)
    fresh = Past()
    fresh.catch_up(stage.bus)
    found: dict[str, Any] = {
        "events": fresh.position,
        "tools_equal": live.registry.snapshot() == fresh.registry.snapshot(),
        "careers_equal": live.careers.versions == fresh.careers.versions,
        "families_equal": [_told(one) for one in live.families] == [_told(one) for one in fresh.families],
    }
    if stage.client is not None:
        done = subprocess.run(
            [sys.executable, "-m", "morphogen.cli", "verify"],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=os.environ | {"MORPHOGEN_HOME": str(stage.settings.home)},
        )
        found["tables_equal"] = done.returncode == 0
        found["tables_said"] = [line for line in done.stdout.splitlines() if line.strip()][-3:]
    found["equal"] = all(value for key, value in found.items() if key.endswith("_equal"))
    return found


def _told(family: Family) -> tuple[Any, ...]:
    return (family.signature, family.uses, family.successes, family.cancelled, family.modes, family.traces)
