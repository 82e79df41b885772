"""Whose address a request is counted under."""

from ipaddress import ip_network

import pytest

from api.addresses import client_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.7"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1", "10.0.0.7"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8:1:2:3::4]"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        (None, ["198.51.100.1"], "198.51.100.1"),
        (None, [], "unknown"),
    ],
)
def test_only_trusted_proxies_say_where_a_request_comes_from(
    peer: str | None, forwarded: list[str], found: str
) -> None:
    scope = {
        "client": None if peer is None else (peer, 4711),
        "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded],
    }

    assert found == client_address(scope, PROXIES)
