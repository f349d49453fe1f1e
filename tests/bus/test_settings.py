"""Settings come from the environment, options win, and a bad value says what to write instead."""

from pathlib import Path

import pytest

from morphogen.bus.errors import SettingsError
from morphogen.bus.settings import Settings


def test_with_nothing_set_the_broker_is_the_embedded_one_of_the_users_data_folder() -> None:
    settings = Settings.from_environ({})
    assert settings.embedded
    assert settings.home.name == "morphogen"
    assert settings.spool_limit == 1 << 30
    assert settings.broker_dir == settings.home / "broker"
    assert settings.spool_dir == settings.home / "spool"
    assert settings.attempts_dir == settings.home / "attempts"
    assert settings.projections_dir == settings.home / "projections"
    assert settings.archive_dir == settings.home / "archive"


def test_an_option_wins_over_its_variable(tmp_path: Path) -> None:
    env = {"MORPHOGEN_URL": "nats://a:1", "MORPHOGEN_HOME": "/nowhere", "MORPHOGEN_TOKEN": "secret"}
    settings = Settings.from_environ(env, url="b:2, tls://c", home=tmp_path)
    assert settings.urls == ("nats://b:2", "tls://c:4222")
    assert settings.home == tmp_path
    assert settings.token == "secret"


@pytest.mark.parametrize(("text", "size"), [("1073741824", 1 << 30), ("2GiB", 2 << 30), ("1.5m", 3 << 19)])
def test_a_spool_limit_may_have_a_unit(text: str, size: int) -> None:
    assert Settings.from_environ({"MORPHOGEN_SPOOL_LIMIT": text}).spool_limit == size


@pytest.mark.parametrize(
    "env",
    [
        {"MORPHOGEN_URL": "http://host:80"},
        {"MORPHOGEN_URL": "nats://host:port"},
        {"MORPHOGEN_URL": "nats://"},
        {"MORPHOGEN_URL": "nats://a host:4222"},
        {"MORPHOGEN_SPOOL_LIMIT": "much"},
        {"MORPHOGEN_SPOOL_LIMIT": "12"},
        {"MORPHOGEN_SPOOL_LIMIT": "9" * 500},
        {"MORPHOGEN_CREDS": "/no/such/file.creds"},
        {"MORPHOGEN_HOME": __file__},
        {"MORPHOGEN_HOME": "~nosuchuser/x"},
        {"MORPHOGEN_HOME": "x" * 300},
        {"MORPHOGEN_HOME": "/data/h?y"},
        {"MORPHOGEN_HOME": "/data/h\\y"},
        {"MORPHOGEN_HOME": "/data/h\udcff"},
        {"MORPHOGEN_HOME": "/data/h\0"},
        {"MORPHOGEN_HOME": f"{__file__}/below"},
        {"MORPHOGEN_CREDS": "~nosuchuser/x.creds"},
        {"MORPHOGEN_URL": " ,"},
        {"MORPHOGEN_URL": "nats://h\udcff:1"},
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_the_variable(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(env)
    assert next(iter(env)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [{"home": __file__}, {"home": "x" * 300}, {"creds": "/no/such/file.creds"}])
def test_a_bad_option_is_named_and_not_its_variable(option: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"^--{next(iter(option))} ") as caught:
        Settings.from_environ({"MORPHOGEN_HOME": "/nowhere"}, **option)  # type: ignore[arg-type]
    assert caught.value.__cause__ is None


def test_blank_is_not_given_and_what_holds_no_address_is_wrong() -> None:
    assert Settings.from_environ({"MORPHOGEN_URL": "a"}, url=" ").urls == ("nats://a:4222",)
    assert Settings.from_environ({"MORPHOGEN_URL": " "}).embedded
    with pytest.raises(SettingsError, match=r"^--url holds no address: ','"):
        Settings.from_environ({"MORPHOGEN_URL": "a"}, url=",")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NATS://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://127.0.0.1:", "nats://127.0.0.1:4222"),
        ("tls://me:P%40ss@Host/", "tls://me:P%40ss@host:4222"),
        ("[::1]", "nats://[::1]:4222"),
        ("wss://h/log/?a=b", "wss://h:4222/log?a=b"),
    ],
)
def test_an_address_is_as_the_client_takes_it(written: str, meant: str) -> None:
    assert Settings.from_environ({}, url=written).urls == (meant,)
    assert Settings.from_environ({}, url=meant).urls == (meant,)


def test_a_home_behind_a_link_is_there_or_told(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    for home in (link, link / "below"):
        with pytest.raises(SettingsError, match=r"^--home cannot be used: .*link leads nowhere"):
            Settings.from_environ({}, home=home)
    (tmp_path / "real").mkdir()
    assert Settings.from_environ({}, home=link / "below").home == link / "below"


def test_the_users_own_data_folder_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data?")
    with pytest.raises(SettingsError, match=r"^the user's data folder holds a '\?'"):
        Settings.from_environ({})


@pytest.mark.parametrize(
    "url",
    [
        "nats://me:hunter2@host:99999",
        "nats://me:hunter2,rest@host:4222",
        "nats://me:hunter2,://rest@host:4222",
        "nats://me:12#hunter2@host:4222",
        "nats://me:12/hunter2@host:4222",
        "nats://me:12?hunter2@host:4222",
        "nats://a:1,me:hunter2@host:4222",
        "nats://me:hunter2@host:4222,nats://b:port",
        "nats://me:hunter2",
        "me:hunter2/",
        "nats://a:4222,nats://me:12hunter2",
    ],
)
def test_of_a_bad_address_with_a_user_nothing_is_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^MORPHOGEN_URL has a bad address; .*%2C") as caught:
        Settings.from_environ({"MORPHOGEN_URL": url})
    assert not any(secret in str(caught.value) for secret in ("hunter2", "rest", "me:", "12"))


def test_several_addresses_with_users_are_taken_apart() -> None:
    url = "nats://me:p%2Cq@a, tls://you:p@b:1,nats://c"
    assert Settings.from_environ({}, url=url).urls == ("nats://me:p%2Cq@a:4222", "tls://you:p@b:1", "nats://c:4222")


JWT = b"-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n"
SEED = b"-----BEGIN USER NKEY SEED-----\nSUAsecret\n------END USER NKEY SEED------\n"


@pytest.mark.parametrize("held", [b"", b"\x00\xff" * 99, b"SUAsecret", JWT, SEED])
def test_a_file_that_holds_no_credentials_is_told_and_not_shown(tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "me.creds"
    path.write_bytes(held)
    with pytest.raises(SettingsError, match=rf"^--creds is no credentials file: {path}; ") as caught:
        Settings.from_environ({}, creds=path)
    assert "secret" not in str(caught.value)
    path.write_bytes(JWT + b"\n" + SEED)
    assert Settings.from_environ({}, creds=path).creds == path


def test_where_no_home_directory_is_known_a_line_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(SettingsError, match=r"^no home directory is known: set MORPHOGEN_HOME to a folder$"):
        Settings.from_environ({})
