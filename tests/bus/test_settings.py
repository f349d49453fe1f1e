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
        {"MORPHOGEN_CREDS": "/no/such/file.creds"},
        {"MORPHOGEN_HOME": __file__},
        {"MORPHOGEN_HOME": "~nosuchuser/x"},
        {"MORPHOGEN_HOME": "x" * 300},
        {"MORPHOGEN_HOME": "/data/h?y"},
        {"MORPHOGEN_HOME": "/data/h\\y"},
        {"MORPHOGEN_CREDS": "~nosuchuser/x.creds"},
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


def test_a_bad_address_is_told_without_its_password() -> None:
    with pytest.raises(SettingsError, match="'host:99999'") as caught:
        Settings.from_environ({"MORPHOGEN_URL": "nats://me:hunter2@host:99999"})
    assert "hunter2" not in str(caught.value)
