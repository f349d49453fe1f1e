"""The time limit of a query holds also where no projector runs and DuckDB heeds no interrupt."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql import local
from morphogen.consumers.projections.sql.errors import SqlTooLong
from morphogen.consumers.projections.sql.query import query

# To cast an object takes the square of its keys, in one step that nothing interrupts: some seconds.
DEAF = (
    "SELECT length(('{' || (SELECT string_agg('\"k' || i || '\": 1', ',') FROM range(20000) r(i)) || '}')"
    "::JSON::VARIANT::VARCHAR)"
)
ENDLESS = "SELECT count(*) FROM range(1000000000000)"
ASK = "import sys, morphogen; morphogen.query(sys.argv[1], progress=lambda *_: print('going', flush=True))"


def test_a_query_that_heeds_no_interrupt_is_answered_at_its_limit_and_keeps_the_store_until_it_ends(
    log: Any, settings: Settings
) -> None:
    log.metrics()
    assert query("SELECT count(*) FROM metrics").scalar() == 10

    with pytest.raises(SqlTooLong, match=r"stopped after 0\.3 s"):
        query(DEAF, timeout=0.3)

    assert local._owner.locked(), "it had ended by itself"
    with pytest.raises(SqlTooLong, match="another thread of this process"):
        query("SELECT 1", timeout=0.01)
    assert query("SELECT count(*) FROM metrics", timeout=60).scalar() == 10
    assert not local._owner.locked()


def test_a_command_ends_at_the_limit_of_such_a_query_with_one_line(log: Any, settings: Settings) -> None:
    log.metrics()
    command = [sys.executable, "-m", "morphogen.cli", "sql"]
    ended = subprocess.run(
        [*command, DEAF, "--timeout", "0.3"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        "morphogen: stopped after 0.3 s, the time limit: narrow the query, or allow more with a timeout"
    ]
    assert query("SELECT count(*) FROM metrics").scalar() == 10


def test_who_interrupts_a_script_ends_it_and_nothing_aborts(log: Any, settings: Settings) -> None:
    log.metrics()
    asker = subprocess.Popen(
        [sys.executable, "-c", ASK, ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert asker.stdout is not None
    assert asker.stdout.readline() == "going\n"
    time.sleep(0.5)  # it is caught up, and asks

    asker.send_signal(signal.SIGINT)
    _, errors = asker.communicate(timeout=30)

    assert asker.returncode == -signal.SIGINT, errors
    assert errors.endswith("KeyboardInterrupt\n")
