"""Which client a request comes from behind proxies: what they write counts, what a client writes does not."""

import pytest

from runtime.transport.forwarded import InvalidNetwork, Proxies, parse_networks

TRUSTED = parse_networks(["127.0.0.1", "10.0.0.0/8", "::1", "2001:db8:1::/48"])
PROXIES = Proxies(trusted=TRUSTED)
RFC = Proxies(trusted=TRUSTED, family="forwarded")


def peer(value, *, of="10.0.0.1", proxies=PROXIES):
    header = "forwarded" if proxies.family == "forwarded" else "x-forwarded-for"
    return proxies.client(of, {header: value}, encrypted=False).peer


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("127.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("2001:DB8::9", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, ,", "203.0.113.9"),
        ("198.51.100.1, unknown", "unknown"),
        ("198.51.100.1, <script>", "unknown"),
        ("127.0.0.1, localhost", "unknown"),
        ("", "10.0.0.1"),
        (", ,", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(value, client):
    assert peer(value) == client


@pytest.mark.parametrize("stranger", ["203.0.113.9", "127.0.0.2", "11.0.0.1", "2001:db8:2::1", "", "unknown"])
def test_what_others_say_is_ignored(stranger):
    headers = {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost", "x-forwarded-proto": "https"}
    client = PROXIES.client(stranger, headers | {"forwarded": "for=127.0.0.1"}, encrypted=False)
    assert (client.peer, client.host, client.encrypted) == (stranger, None, False)


def test_without_trusted_proxies_nothing_is_believed():
    assert Proxies().client("127.0.0.1", {"x-forwarded-for": "1.2.3.4"}, encrypted=False).peer == "127.0.0.1"


def test_headers_of_the_other_family_are_not_read():
    assert PROXIES.client("127.0.0.1", {"forwarded": "for=1.2.3.4"}, encrypted=False).peer == "127.0.0.1"
    assert RFC.client("127.0.0.1", {"x-forwarded-for": "1.2.3.4"}, encrypted=False).peer == "127.0.0.1"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.9;proto=https;host=a.example", "203.0.113.9"),
        ('for=198.51.100.1, For="[2001:db8::9]:4711"', "2001:db8::9"),
        ("for=198.51.100.1, for=203.0.113.9, for=10.1.2.3", "203.0.113.9"),
        ("for=_hidden", "unknown"),
        ("for=198.51.100.1, proto=https", "unknown"),
    ],
)
def test_forwarded_of_rfc_7239_is_read_the_same_way(value, client):
    assert peer(value, proxies=RFC) == client


def test_name_and_encryption_are_those_that_the_nearest_proxy_wrote():
    headers = {
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-host": "made.up, signals.example.com",
        "x-forwarded-proto": "http, https",
    }
    client = PROXIES.client("127.0.0.1", headers, encrypted=False)
    assert (client.host, client.encrypted) == ("signals.example.com", True)
    client = RFC.client("::1", {"forwarded": "for=203.0.113.9;host=a.example;proto=https"}, encrypted=False)
    assert (client.host, client.encrypted) == ("a.example", True)


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "300.0.0.1", "", "unix"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(InvalidNetwork, match="must be an address or a network such as"):
        parse_networks([text])
