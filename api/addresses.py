"""Where a request comes from, as far as proxies that are trusted say so."""

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from shared.settings import IpNetwork

_NOBODY = "unknown"
_IPV6_SITE_BITS = 64  # whoever has one such address has all of its network


def client_address(scope: Any, trusted: Sequence[IpNetwork]) -> str:
    """The client's address; of an IPv6 one its network.

    Proxies append to `X-Forwarded-For` whom they talk to: read from the right, the first address
    that is no trusted proxy's is the client's. What stands left of it anybody may have written.
    """
    peer = scope.get("client")
    address = _parsed(peer[0]) if peer else None
    if trusted and (address is None or _is_in(address, trusted)):
        for hop in reversed(_forwarded(scope["headers"])):
            found = _parsed(hop)
            if found is None:
                break
            address = found
            if not _is_in(found, trusted):
                break
    return _NOBODY if address is None else _site(address)


def _forwarded(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    values = [value for name, value in headers if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        found = ip_address(text.strip().removeprefix("[").removesuffix("]"))
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return mapped or found
    return None


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)


def _site(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> _IPV6_SITE_BITS << _IPV6_SITE_BITS)}/{_IPV6_SITE_BITS}"
