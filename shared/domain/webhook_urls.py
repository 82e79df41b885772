"""Where a webhook may go: the judgement of a URL at registration, and of an address at dial.

The first tells a person early; the second, made on every connection, is the one that protects.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from typing import NoReturn

import idna

from shared.errors import Flaw, UnacceptableError
from shared.settings import IpNetwork, Settings

MAX_URL_CHARS = 2048
PORTS = frozenset({80, 443, 8443})

Address = IPv4Address | IPv6Address

LOOPBACK: tuple[IpNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

# `is_global` alone lets NAT64, IPv4-compatible and multicast addresses pass, and changed its mind
# between releases of Python. This list is the whole of the IANA special-purpose registries.
REFUSED: tuple[IpNetwork, ...] = tuple(
    ip_network(cidr)
    for cidr in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator allows beyond public https."""

    allow_http: bool = False
    any_port: bool = False
    allow_cidrs: tuple[IpNetwork, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """Read the settings; dev mode adds http, any port and loopback."""
        dev = settings.dev_mode
        return cls(
            allow_http=dev or settings.webhook_allow_http,
            any_port=dev,
            allow_cidrs=(*settings.webhook_allow_cidrs, *(LOOPBACK if dev else ())),
        )


def check(url: str, policy: Policy) -> None:
    """Refuse a URL no webhook may be sent to: `UnacceptableError` with the pointer `/url`.

    Nothing is looked up: a name that means a private address is refused when it is dialled.
    """
    if len(url) > MAX_URL_CHARS:
        _refuse(f"The URL may have {MAX_URL_CHARS:,} characters.")
    if "\\" in url or " " in url or not url.isprintable():
        _refuse("The URL holds spaces, control or invisible characters, or a backslash.")
    parts = _URL.fullmatch(url)
    if parts is None:
        _refuse("The URL must be absolute: https://host/path.")
    scheme, authority, fragment = parts.groups()
    if scheme.lower() not in ({"https", "http"} if policy.allow_http else {"https"}):
        _refuse("The URL must start with https://.")
    if fragment is not None:
        _refuse("The URL has a fragment (#…), which is never sent.")
    if "@" in authority:
        _refuse("The URL must not hold a user name or password; use a header or the signature.")
    _check_authority(authority, policy)


def address_allowed(address: Address, allow_cidrs: Sequence[IpNetwork] = ()) -> bool:
    """Say whether a connection to this address may be opened. IPv4-mapped counts as IPv4."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.scope_id is not None:
            address = IPv6Address(int(address))
    if any(address in network for network in allow_cidrs):
        return True
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in REFUSED)
    )


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(?:[/?][^#]*)?(#.*)?")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_HOST_CHARS = 253
_LOCALHOST = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def _check_authority(authority: str, policy: Policy) -> None:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        _refuse("The URL's host and port cannot be read.")
    host, port = parts.groups()
    if port is not None:
        _check_port(port, policy)
    if host.startswith("["):
        _check_bracketed(host[1:-1], policy)
    else:
        _check_host(host, policy)


def _check_port(port: str, policy: Policy) -> None:
    number = int(port) if _PORT.fullmatch(port) else 0
    if not 0 < number < 2**16:
        _refuse("The URL's port is not a number from 1 to 65535.")
    if not policy.any_port and number not in PORTS:
        _refuse("The URL's port must be 80, 443 or 8443.")


def _check_bracketed(literal: str, policy: Policy) -> None:
    try:
        address = IPv6Address(literal)
    except AddressValueError:
        _refuse("The URL's IPv6 address cannot be read.")
    if address.scope_id is not None:
        _refuse("The URL's IPv6 address must not name a network interface.")
    _check_address(address, policy)


def _check_host(host: str, policy: Policy) -> None:
    if not host:
        _refuse("The URL has no host.")
    try:
        name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
        # A label that claims to be encoded already must be what encoding would make of it.
        if "xn--" in name:
            idna.decode(name)
    except UnicodeError:
        _refuse("The URL's host is not a valid internationalised name.")
    labels = name.split(".")
    if len(name) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse("The URL's host is not a valid name.")
    if _NUMBER.fullmatch(labels[-1]):
        _check_number(name, policy)
    elif labels[-1] == "localhost" or name == "localhost.localdomain":
        _check_localhost(policy)


def _check_localhost(policy: Policy) -> None:
    if not any(address_allowed(address, policy.allow_cidrs) for address in _LOCALHOST):
        _refuse("The URL points at this very machine.")


def _check_number(name: str, policy: Policy) -> None:
    """Judge a host that resolvers read as an IPv4 address: its last label is a number.

    `127.1`, `2130706433`, `0x7f000001` and `0177.0.0.1` all mean 127.0.0.1 to some of them. Only
    four decimal numbers mean the same to everybody, so nothing else is accepted, public or not.
    """
    try:
        address = IPv4Address(name)
    except AddressValueError:
        _refuse("The URL's host is a number; write an address as four decimal numbers.")
    _check_address(address, policy)


def _check_address(address: Address, policy: Policy) -> None:
    if not address_allowed(address, policy.allow_cidrs):
        _refuse(f"The URL points at {address}, which is not a public address.")


def _refuse(message: str) -> NoReturn:
    raise UnacceptableError(message, flaws=[Flaw("/url", message)])
