"""Who may call this server, by the names it was called under."""

import pytest

from runtime.transport.config import TransportConfig
from runtime.transport.origin import refusal

CONFIG = TransportConfig(hosts=("Signals.example.com", "exact.example.com:8443"), origins=("https://App.example.com",))


def status(host, origin=None):
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    response = refusal(headers, hosts=CONFIG.hosts, origins=CONFIG.origins)
    return 200 if response is None else response.status


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8787",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
        "signals.example.com",
        "signals.example.com:9",
        "exact.example.com:8443",
    ],
)
def test_loopback_and_configured_names_are_served(host):
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8787", "exact.example.com", "localhost.evil.example", "127.0.0.2", "::1"],
)
def test_any_other_name_is_misdirected(host):
    assert status(host) == 421


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8787", "http://localhost:8787"),
        ("localhost:8787", "HTTPS://LOCALHOST:8787"),
        ("signals.example.com", "https://signals.example.com"),
        ("signals.example.com:443", "https://signals.example.com"),
        ("localhost", "http://localhost:80"),
        ("[::1]:8787", "http://[::1]:8787"),
        ("localhost", "https://app.example.com"),
    ],
)
def test_the_own_origin_and_configured_ones_may_call(host, origin):
    assert status(host, origin) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1:8787",
        "file://localhost:8787",
        "http://[::1",
        "https://app.example.com.evil.example",
    ],
)
def test_any_other_origin_is_forbidden(origin):
    assert status("localhost:8787", origin) == 403


def test_the_message_says_what_was_seen():
    response = refusal({"host": "evil.example"}, hosts=(), origins=())
    assert b"'evil.example' is not served here" in response.body
