"""Claims about `heliograph.toml`: what it may say, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import attrs
import pytest

from runtime.config import ConfigError, ServerConfig, check_exposure, load_config
from runtime.tables import Secret


@attrs.frozen(kw_only=True)
class Source:
    kind: Literal["host", "http"]
    name: str
    every_s: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))


@attrs.frozen(kw_only=True)
class Ingest:
    enabled: bool = True
    sources: tuple[Source, ...] = ()
    labels: dict[str, int] = attrs.field(factory=dict)
    key: Secret | None = None
    low: int = 1
    high: int = 2

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; low must not be the higher one")


@attrs.frozen(kw_only=True)
class Settings:
    ingest: Ingest = Ingest()
    shards: int = 2


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> tuple[ServerConfig, Settings]:
    path = tmp_path / "heliograph.toml"
    path.write_text(text)
    return load_config(path, Settings, environ=environ or {})


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return [line.removeprefix(f"{tmp_path / 'heliograph.toml'}: ") for line in str(caught.value).splitlines()]


def test_without_a_file_everything_has_its_default():
    assert load_config(None, Settings) == (ServerConfig(), Settings())


def test_the_server_table_and_the_apps_tables_are_told_apart(tmp_path):
    server, settings = load(
        tmp_path,
        """
        shards = 4
        [server]
        port = 0
        data = "elsewhere"
        allowed_origins = ["https://example.org"]
        [ingest]
        enabled = false
        labels = { a = 1 }
        [[ingest.sources]]
        kind = "http"
        name = "prices"
        every_s = 5
        """,
    )
    assert server == ServerConfig(port=0, data=Path("elsewhere"), allowed_origins=("https://example.org",))
    source = Source(kind="http", name="prices", every_s=5.0)
    assert settings == Settings(shards=4, ingest=Ingest(enabled=False, labels={"a": 1}, sources=(source,)))


def test_all_mistakes_are_reported_together_each_with_its_full_key(tmp_path):
    seen = mistakes(
        tmp_path,
        """
        [server]
        port = 70_000
        data = 3
        [ingest]
        labels = { a = "x" }
        [[ingest.sources]]
        kind = "host"
        name = "a"
        [[ingest.sources]]
        kind = "ftp"
        every_s = 0
        """,
    )
    assert sorted(seen) == [
        'ingest.labels.a: saw "x"; must be a whole number',
        "ingest.sources[1].every_s: must be > 0: 0.0",
        'ingest.sources[1].kind: saw "ftp"; must be one of "host", "http"',
        "ingest.sources[1].name: missing; it has no default",
        "server.data: saw 3; must be a path in quotes",
        "server.port: must be <= 65535: 70000",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nhots = 'x'", "server.hots: unknown key; did you mean 'host'? allowed: allowed_hosts, "),
        (
            "[servre]\nhost = 'x'",
            "servre: unknown key; did you mean 'server'? allowed: ingest, proxy, server, shards, tls",
        ),
        ("zzz = 1", "zzz: unknown key; allowed: ingest, proxy, server, shards, tls"),
        ("[[ingest.sources]]\nkind = 'host'\nname = 'a'\nevry_s = 1", "ingest.sources[0].evry_s: unknown key; did you"),
    ],
)
def test_an_unknown_key_names_the_nearest_and_all(tmp_path, text, expected):
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shards = '4'", 'shards: saw "4"; must be a whole number'),
        ("shards = true", "shards: saw true; must be a whole number"),
        ("shards = 1.5", "shards: saw 1.5; must be a whole number"),
        ("ingest = []", "ingest: saw an array; must be a table"),
        ("server = 3", "server: saw 3; must be a table"),
        ("ingest.enabled = 1", "ingest.enabled: saw 1; must be true or false"),
        ("ingest.sources = 'host'", 'ingest.sources: saw "host"; must be an array: [ … ]'),
        ("ingest.sources = ['host']", 'ingest.sources[0]: saw "host"; must be a table'),
        ("ingest.labels = 1", "ingest.labels: saw 1; must be a table"),
        ("server.host = 1", "server.host: saw 1; must be a text in quotes"),
        (
            "server.log_level = 'loud'",
            'server.log_level: saw "loud"; must be one of "debug", "info", "warning", "error"',
        ),
        (
            "[[ingest.sources]]\nkind = 'host'\nname = 'a'\nevery_s = nan",
            "ingest.sources[0].every_s: saw nan; must be a number",
        ),
        ("ingest.low = 3", "ingest: low is 3 and high 2; low must not be the higher one"),
    ],
)
def test_nothing_is_coerced(tmp_path, text, expected):
    assert mistakes(tmp_path, text) == [expected]


def test_a_syntax_error_names_the_line(tmp_path):
    (mistake,) = mistakes(tmp_path, "[server]\nport = \n")
    assert mistake == "not TOML: Invalid value (at line 2, column 8)"


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file or directory"):
        load_config(tmp_path / "missing.toml", Settings)


def test_a_secret_comes_from_the_environment_and_is_never_shown(tmp_path):
    _, settings = load(tmp_path, "ingest.key = 'env:KEY'", {"KEY": "hunter2"})
    assert settings.ingest.key == Secret("hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_a_secret_may_stand_in_the_file(tmp_path):
    assert load(tmp_path, "ingest.key = 'hunter2'")[1].ingest.key == Secret("hunter2")


def test_a_missing_variable_is_named(tmp_path):
    assert mistakes(tmp_path, "ingest.key = 'env:KEY'") == [
        "ingest.key: the environment variable 'KEY' is not set or empty; set it"
    ]


def test_a_mistaken_secret_is_not_shown(tmp_path):
    (mistake,) = mistakes(tmp_path, "ingest.key = 424242")
    assert "424242" not in mistake


@attrs.frozen
class Guarded:
    authentication_key: ClassVar[str] = "auth.tokens"
    tokens: tuple[str, ...] = ()

    def authenticated(self) -> bool:
        return bool(self.tokens)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_authentication(host):
    check_exposure(ServerConfig(host=host), Settings())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
@pytest.mark.parametrize(("settings", "why"), [(Settings(), "this app has none"), (Guarded(), "set auth.tokens")])
def test_any_other_address_is_refused_without_authentication(host, settings, why):
    with pytest.raises(ConfigError) as caught:
        check_exposure(ServerConfig(host=host), settings)
    assert repr(host) in str(caught.value)
    assert why in str(caught.value)
    assert "server.host" in str(caught.value)


def test_any_address_is_allowed_with_authentication():
    check_exposure(ServerConfig(host="0.0.0.0"), Guarded(tokens=("secret",)))


def test_the_certificate_and_its_key_come_together(tmp_path):
    assert mistakes(tmp_path, "[tls]\ncertificate = 'chain.pem'") == [
        "tls: certificate and key come together; set both, or neither"
    ]


@pytest.mark.parametrize("text", ["unix", "10.0.0.1/8"])
def test_a_trusted_proxy_is_an_address_or_a_network(tmp_path, text):
    (mistake,) = mistakes(tmp_path, f"[proxy]\ntrusted = ['{text}']")
    assert mistake.startswith(f"proxy.trusted: saw {text!r}; must be an address or a network such as 10.0.0.0/8")
