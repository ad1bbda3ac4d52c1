"""Which URLs may be requested. Names are resolved by the machine's own resolver, or by a table."""

import socket
from ipaddress import ip_network

import pytest

from app.outbound.addresses import AddressError, resolve

FORMS = [
    "http://",
    "https://",
    "https:///x",
    "//hooks.example.com/",
    "hooks.example.com/x",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "ftp://hooks.example.com/",
    "javascript:alert(1)",
    "https://user@hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://hooks.example.com/#fragment",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com/a\\b",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/a\tb",
    "https://hooks.example.com/\r\nHost: other",
    " https://hooks.example.com/",
    "https://hooks.example.com/\x00",
    "https://hooks.exаmple.com/",  # noqa: RUF001  a Cyrillic letter is the case
    "https://127。0。0。1/",
    "https://ⓔxample.com/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:x/",
    "https://hooks.example.com:-1/",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://%31%32%37.0.0.1/",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    f"https://hooks.example.com/{'x' * 2048}",
]
INSIDE = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials/",
    "https://0xa9fea9fe/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::169.254.169.254]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:a9fe:a9fe::]/",
    "https://[2001:0:a9fe:a9fe::1]/",
    "https://[2001:db8::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[3fff::1]/",
    "https://[5f00::1]/",
    "https://name-that-does-not-exist.invalid/",
]
NOT_PUBLIC = "Its host must have public addresses, and no others."


@pytest.fixture
def every_name(monkeypatch) -> dict[str, list[str]]:
    """The addresses of every_name, for this test."""
    table: dict[str, list[str]] = {}

    def answer(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (it, port)) for it in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return table


@pytest.mark.parametrize("url", FORMS)
def test_a_url_of_another_form_is_refused(every_name, url):
    every_name["hooks.example.com"] = ["8.8.8.8"]
    with pytest.raises(AddressError) as refused:
        resolve(url)
    assert str(refused.value) != NOT_PUBLIC


@pytest.mark.parametrize("url", INSIDE)
def test_every_address_that_is_not_public_gets_the_same_words(url):
    with pytest.raises(AddressError, match=f"^{NOT_PUBLIC}$"):
        resolve(url)


def test_one_address_that_is_not_public_refuses_the_name(every_name):
    every_name["hooks.example.com"] = ["8.8.8.8", "10.0.0.1"]
    with pytest.raises(AddressError, match=f"^{NOT_PUBLIC}$"):
        resolve("https://hooks.example.com/")
    every_name["hooks.example.com"] = ["8.8.8.8", "2600::1"]
    assert resolve("https://hooks.example.com/").addresses == ("8.8.8.8", "2600::1")
    every_name["hooks.example.com"] = ["64:ff9b::808:808"]  # where a network has DNS64
    assert resolve("https://hooks.example.com/").addresses == ("64:ff9b::808:808",)


def test_four_addresses_of_a_name_are_tried(every_name):
    every_name["hooks.example.com"] = [f"8.8.8.{number}" for number in range(9)]
    assert len(resolve("https://hooks.example.com/").addresses) == 4


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "http://hooks.example.com:443/",
        "https://hooks.example.com:8443/",
    ],
)
def test_only_https_on_its_own_port_leaves_for_the_internet(every_name, url):
    every_name["hooks.example.com"] = ["8.8.8.8"]
    with pytest.raises(AddressError, match=r"^It must begin with https:// and use port 443\.$"):
        resolve(url, [ip_network("10.0.0.0/8")])


def test_the_vendors_own_networks_are_open_and_no_others(every_name):
    every_name |= {"inside": ["10.1.2.3"], "both": ["10.1.2.3", "8.8.8.8"], "other": ["10.2.0.1"]}
    own = [ip_network("10.1.0.0/16")]
    assert resolve("http://inside:8080/a?b=c", own)._asdict() == {
        "tls": False,
        "host": "inside:8080",
        "name": "inside",
        "addresses": ("10.1.2.3",),
        "port": 8080,
        "target": "/a?b=c",
    }
    assert resolve("https://both/", own).port == 443
    for url in ("http://both:8080/", "https://other/"):
        with pytest.raises(AddressError):
            resolve(url, own)
