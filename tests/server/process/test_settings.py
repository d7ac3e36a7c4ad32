import dataclasses
import tomllib
from pathlib import Path

import pytest

from elman_server.domain.errors import SettingsError
from elman_server.process.settings import (
    FOREIGN,
    RULES,
    Settings,
    flag,
    load,
    to_markdown,
    to_toml,
    unknown_variables,
    variable,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def test_flags_win_over_variables_over_defaults():
    """A flag beats its variable, a variable beats the default."""
    settings = load({"max_batch": "8", "store": None}, {"ELMAN_MAX_BATCH": "4", "ELMAN_MAX_CHARS": "7"})

    assert settings == dataclasses.replace(Settings(), max_batch=8, max_chars=7)


def test_every_type_is_read():
    """Text becomes the type of its setting."""
    settings = load(
        {
            "listen": "[::1]:0",
            "models": "some/models",
            "session_ttl": "1.5",
            "reflection": "off",
            "tls_certificate": "c.pem",
            "tls_key": "k.pem",
        },
        {},
    )

    assert settings == dataclasses.replace(
        Settings(),
        listen="[::1]:0",
        models=Path("some/models"),
        session_ttl=1.5,
        reflection=False,
        tls_certificate=Path("c.pem"),
        tls_key=Path("k.pem"),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("listen", "50051"),
        ("listen", "localhost"),
        ("listen", "localhost:65536"),
        ("listen", "localhost:-1"),
        ("listen", "unix:"),
        ("models", ""),
        ("store", "memory"),
        ("store", "sqlite:"),
        ("store", "redis://"),
        ("store", "redis+cluster:somewhere"),
        ("store_timeout_seconds", "0"),
        ("session_ttl", "nan"),
        ("session_ttl", "inf"),
        ("session_ttl", "0"),
        ("max_batch", "0"),
        ("max_batch", "1025"),
        ("max_batch", "1.5"),
        ("max_batch", "many"),
        ("max_batch", "9" * 10_000),
        ("max_message_bytes", "2147483648"),
        ("grace_seconds", "-1"),
        ("commit_seconds", "2.6"),  # a lease is 5 s
        ("reflection", "perhaps"),
        ("log_format", "xml"),
        ("log_level", "INFO"),
        ("tls_key", "alone.pem"),
    ],
)
def test_values_out_of_range_are_refused(name: str, text: str):
    """The error is one short line that names flag and variable, whichever way the value came."""
    with pytest.raises(SettingsError) as by_flag:
        load({name: text}, {})
    with pytest.raises(SettingsError) as by_variable:
        load({}, {variable(name): text})

    named = "tls_certificate" if name == "tls_key" else name
    assert str(by_flag.value) == str(by_variable.value)
    assert str(by_flag.value).startswith(f"{flag(named)} ({variable(named)}) is ")
    assert len(str(by_flag.value)) < 250


def test_settings_made_in_code_are_checked():
    """No way around the ranges."""
    with pytest.raises(SettingsError, match=r"--max-batch \(ELMAN_MAX_BATCH\) is '0'; allowed is 1 to 1024"):
        Settings(max_batch=0)


@pytest.mark.parametrize(
    "name",
    [
        "ELMAN_TARGET",
        "ELMAN_CLUSTER_PORT",
        "ELMAN_PORT",
        "ELMAN_SERVICE_HOST",
        "ELMAN_SERVICE_PORT",
        "ELMAN_SERVICE_PORT_GRPC",
        "ELMAN_PORT_50051_TCP",
        "ELMAN_PORT_50051_TCP_PROTO",
        "ELMAN_PORT_50051_TCP_PORT",
        "ELMAN_PORT_50051_TCP_ADDR",
        "ELMAN_REDIS_SERVICE_HOST",
        "ELMAN_REDIS_NAME",
        "ELMAN_ENV_PATH",
    ],
)
def test_variables_of_others_are_no_settings(name: str):
    """The client's variables and those of Kubernetes and docker change nothing and are not worth a warning."""
    environ = {name: "tcp://10.0.0.1:50051", "PATH": "/bin"}

    assert load({}, environ) == Settings()
    assert unknown_variables(environ) == {}


def test_unknown_variables_are_known_by_name():
    """A misspelt variable changes nothing and is reported with the setting that is near."""
    environ = {"ELMAN_MAX_BATHC": "4", "ELMAN_ZZ": "1", "ELMAN_MAX_CHARS": "7", "OTHER": "1"}

    assert load({}, environ) == Settings(max_chars=7)
    assert unknown_variables(environ) == {"ELMAN_MAX_BATHC": "did you mean ELMAN_MAX_BATCH?", "ELMAN_ZZ": "unset it"}


def test_no_setting_is_named_as_a_variable_of_others():
    """No variable that is ignored for the sake of others is a setting."""
    assert [name for name in RULES if FOREIGN.fullmatch(variable(name))] == []


@pytest.mark.parametrize(
    ("store", "lifetimes"),
    [
        ("memory:", (3600, 86400)),
        ("sqlite:sessions.db", (30 * 86400, 365 * 86400)),
        ("redis://somewhere", (30 * 86400, 365 * 86400)),
    ],
)
def test_sessions_on_disk_live_longer(store: str, lifetimes: tuple[float, float]):
    """By default sessions live as long as fits their store; what is set counts in every store."""
    assert Settings(store=store).lifetimes == lifetimes
    assert Settings(store=store, session_ttl=2, session_max_age=3).lifetimes == (2, 3)


def test_effective_settings_are_toml():
    """`--print-config` can be parsed again; what is not set is a comment."""
    settings = dataclasses.replace(Settings(), listen='unix:/tmp/"é', models=Path("m"))
    expected = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}

    effective = {"models": "m", "session_ttl": 3600, "session_max_age": 86400}
    assert tomllib.loads(to_toml(settings)) == {**expected, **effective}
    assert "# tls_key is not set\n" in to_toml(settings)


def test_every_setting_is_documented():
    """Each setting has one line, and each number a range."""
    for name, rule in RULES.items():
        assert rule.line.endswith(".")
        assert "\n" not in rule.line
        default = getattr(Settings(), name)
        if name.startswith("session_") or (isinstance(default, (int, float)) and not isinstance(default, bool)):
            assert rule.allowed


def test_the_document_is_current():
    """docs/settings.md is what `make docs` writes."""
    assert DOCUMENT.read_text(encoding="utf-8") == to_markdown()


def test_passwords_are_not_shown():
    """What is printed of a store's URL holds neither user nor password."""
    shown = tomllib.loads(to_toml(Settings(store="rediss://me:p@ss:word@somewhere:1/0?ca=x")))

    assert shown["store"] == "rediss://***@somewhere:1/0?ca=x"
