"""Webhook URLs: what is refused at registration, and which addresses are never dialled."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import webhook_urls
from shared.domain.webhook_urls import LOOPBACK, REFUSED, Policy
from shared.errors import UnacceptableError
from shared.settings import IpNetwork, Settings

PUBLIC = Policy()
DEV = Policy(allow_http=True, any_port=True, allow_cidrs=LOOPBACK)

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.0x1",
    "0",
    "0.0.0.0",  # noqa: S104 (refused here)
    "00000000177.1",
    "127.000.000.001",
    "１２７.０.０.１",  # noqa: RUF001 (full-width digits)
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "a.localhost",
    "a.b.LocalHost",
    "ｌocalhost",  # noqa: RUF001 (full-width letter)
    "localhost.localdomain",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
]
PRIVATE_HOSTS = [
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.31.255.255",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[fe80::1]",
    "[fd00::1]",
    "[ff02::1]",
    "[::ffff:10.0.0.1]",
    "[2001:db8::1]",
]
BROKEN_HOSTS = [
    "",
    ".",
    "example.com.",
    "example.com..",
    ".example.com",
    "exa mple.com",
    "exa\tmple.com",
    "example.com\r\n",
    "exa\u200bmple.com",
    "\u202eexample.com",
    "a" * 64 + ".com",
    ".".join(["a" * 60] * 5),
    "-a.com",
    "a-.com",
    "a..b",
    "a%2eb",
    "%31%32%37.0.0.1",
    "xn--a",
    "xn--.com",
    "\U0001f600\u0301.com",
    "[::1",
    "::1]",
    "::1",
    "[::1]x",
    "[]",
    "[127.0.0.1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "example.0x7f",
    "example.1",
    "a,b",
    "a;b",
    "a'b",
    "<a>",
    "{a}",
    "$(a)",
]


def refused(url: str, policy: Policy = PUBLIC) -> bool:
    try:
        webhook_urls.check(url, policy)
    except UnacceptableError:
        return True
    return False


def test_a_refusal_points_at_the_url() -> None:
    with pytest.raises(UnacceptableError) as refusal:
        webhook_urls.check("https://127.0.0.1/", PUBLIC)

    assert [flaw.pointer for flaw in refusal.value.flaws] == ["/url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/",
        "HTTPS://EXAMPLE.com/Hook?a=b&c=%20d",
        "https://example.com?x=1",
        "https://example.com:443/",
        "https://example.com:8443/",
        "https://example.com:80/",
        "https://b\u00fccher.example/\u00fc",
        "https://xn--bcher-kva.example/",
        "https://my_service.internal-name.example/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://127.0.0.1.example.com/",
        "https://localhost.example.com/",
        "https://1password.com/",
        "https://example.com/{a}|b/[x]",
        "https://example.com/" + "x" * (2048 - len("https://example.com/")),
    ],
)
def test_public_https_urls_are_accepted(url: str) -> None:
    assert not refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/hook",
        "example.com/hook",
        "//example.com/hook",
        "https:",
        "https:/example.com",
        "https:example.com",
        "https:///example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://example.com/",
        "httpss://example.com/",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/\n",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://example.com/a b",
        "https://exam\nple.com/",
        "ht\ntps://example.com/",
        "https://a:b@example.com/",
        "https://a@example.com/",
        "https://@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com/#x",
        "https://example.com/#",
        "https://example.com#@127.0.0.1/",
        r"https://127.0.0.1\@evil.com/",
        r"https:\\example.com\a",
        "https://example.com/" + "x" * (2049 - len("https://example.com/")),
    ],
)
def test_a_url_of_another_shape_is_refused_even_in_dev_mode(url: str) -> None:
    assert refused(url)
    assert refused(url, DEV)


@pytest.mark.parametrize("host", BROKEN_HOSTS)
def test_a_broken_host_is_refused_even_in_dev_mode(host: str) -> None:
    assert refused(f"https://{host}/")
    assert refused(f"https://{host}/", DEV)
    assert refused(f"https://{host}:443/")


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS + PRIVATE_HOSTS)
def test_no_spelling_of_a_private_address_is_accepted(host: str) -> None:
    assert refused(f"https://{host}/")
    assert refused(f"https://{host}:8443/hook?x")


@pytest.mark.parametrize("port", ["0", "22", "6379", "99999", "", "-1", "+443", "4 43", "0x1bb"])
def test_other_ports_are_refused(port: str) -> None:
    assert refused(f"https://example.com:{port}/")


def test_full_width_ports_are_refused() -> None:
    assert refused("https://example.com:\uff14\uff14\uff13/")
    assert refused("https://example.com:443:443/")


def test_http_needs_permission() -> None:
    assert refused("http://example.com/")
    assert not refused("http://example.com/", Policy(allow_http=True))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/hook",
        "http://localhost:9000/hook",
        "http://receiver.localhost/hook",
        "http://[::1]:9000/hook",
        "https://127.8.9.10/",
        "http://[::ffff:127.0.0.1]:65535/",
    ],
)
def test_dev_mode_allows_loopback_over_http_on_any_port(url: str) -> None:
    assert not refused(url, Policy.of(Settings(dev_mode=True)))
    assert refused(url, Policy.of(Settings()))


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "10.0.0.1"])
def test_dev_mode_allows_neither_odd_spellings_nor_other_private_networks(host: str) -> None:
    assert refused(f"http://{host}:9000/", DEV)


def test_networks_named_in_the_settings_are_allowed() -> None:
    policy = Policy.of(Settings(webhook_allow_cidrs=(ip_network("10.1.0.0/16"),)))

    assert not refused("https://10.1.2.3/", policy)
    assert refused("https://10.2.2.3/", policy)
    assert refused("https://127.0.0.1/", policy)
    assert refused("http://10.1.2.3/", policy)
    assert refused("https://10.1.2.3:9000/", policy)


def test_http_can_be_allowed_by_a_setting_alone() -> None:
    policy = Policy.of(Settings(webhook_allow_http=True))

    assert not refused("http://example.com/", policy)
    assert refused("http://127.0.0.1/", policy)
    assert refused("http://example.com:9000/", policy)


@pytest.mark.parametrize("network", REFUSED, ids=str)
def test_each_refused_network_is_refused_from_its_first_to_its_last_address(
    network: IpNetwork,
) -> None:
    middle = network.network_address + network.num_addresses // 2

    for address in (network.network_address, middle, network.broadcast_address):
        assert not webhook_urls.address_allowed(address)
        assert webhook_urls.address_allowed(address, [network])


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1%eth0",
        "::1%1",
        "255.255.255.255",
        "0.0.0.0",  # noqa: S104 (refused here)
        "::",
    ],
)
def test_addresses_that_lead_inside_are_refused(address: str) -> None:
    assert not webhook_urls.address_allowed(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "::ffff:8.8.8.8", "2606:4700:4700::1111", "11.0.0.0", "223.255.255.255"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert webhook_urls.address_allowed(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_and_its_mapped_twin_are_judged_alike(address: IPv4Address) -> None:
    mapped = IPv6Address(int(ip_address("::ffff:0:0")) + int(address))

    assert webhook_urls.address_allowed(address) == webhook_urls.address_allowed(mapped)
    assert webhook_urls.address_allowed(address) == (not refused(f"https://{address}/"))


@given(st.ip_addresses())
def test_what_is_allowed_is_global(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None

    if webhook_urls.address_allowed(address):
        assert (mapped or address).is_global


@given(st.ip_addresses(network="127.0.0.0/8"), st.integers(min_value=0, max_value=3))
def test_a_loopback_address_written_as_a_number_is_refused(address: IPv4Address, form: int) -> None:
    number = int(address)
    spelled = [str(number), hex(number), f"0{number:o}", f"127.{number % 2**24}"][form]

    assert refused(f"https://{spelled}/")


@given(st.text(max_size=60))
def test_no_text_is_anything_but_accepted_or_refused(text: str) -> None:
    refused(text)
    refused("https://" + text)
    refused(f"https://{text}.example/", DEV)
