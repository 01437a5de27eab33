"""HOST:PORT: what is read, what is printed, and what is refused with which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from componentbase.endpoints import Endpoint, origin_of

hosts = st.one_of(
    st.just(""),
    st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9-]{0,8}[a-z0-9]){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(hosts, st.integers(0, 65535))
def test_what_is_printed_is_read_back(host: str, port: int) -> None:
    endpoint = Endpoint(host, port)
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:10000", Endpoint("127.0.0.1", 10000)),
        ("hub.example.org:443", Endpoint("hub.example.org", 443)),
        ("hub.example.org.:443", Endpoint("hub.example.org.", 443)),
        ("my_container:1883", Endpoint("my_container", 1883)),
        (":10000", Endpoint("", 10000)),
        ("[::1]:0", Endpoint("::1", 0)),
    ],
)
def test_usual_spellings_are_read(text: str, expected: Endpoint) -> None:
    assert Endpoint.parse(text) == expected


def test_port_may_be_left_out_where_there_is_a_default() -> None:
    assert Endpoint.parse("hub", 10000) == Endpoint("hub", 10000)
    assert Endpoint.parse("[::1]", 10000) == Endpoint("::1", 10000)
    assert Endpoint.parse("hub:1", 10000) == Endpoint("hub", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no port: write 127.0.0.1:10000"),
        ("hub", "has no port: write hub:10000"),
        ("hub:", '"" is not a port number'),
        ("hub:http", '"http" is not a port number'),
        ("hub:-1", '"-1" is not a port number'),
        ("hub:\u0661", "is not a port number"),
        ("hub:65536", "a port is 0 to 65535"),
        ("hub:" + "9" * 5000, "a port is 0 to 65535"),
        ("::1:80", "an IPv6 address stands in brackets"),
        ("[::1:80", '"]" is missing'),
        ("[::1]", "has no port"),
        ("[::1]80", "has no port"),
        ("[hub]:80", '"hub" is not an IPv6 address'),
        ("256.1.1.1:80", '"256.1.1.1" is not an IPv4 address'),
        ("http://hub:80", "an IPv6 address stands in brackets"),
        ("hub/path:80", "neither a host name nor an address"),
        ("hub..org:80", "neither a host name nor an address"),
        ("-hub:80", "neither a host name nor an address"),
        ("h" * 64 + ":80", "neither a host name nor an address"),
        ("a." * 130 + "a:80", "neither a host name nor an address"),
        ("hub :80", "neither a host name nor an address"),
    ],
)
def test_other_texts_are_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is checked below
        Endpoint.parse(text)
    assert says in str(caught.value)


def test_the_example_has_the_port_that_is_usual_there() -> None:
    with pytest.raises(ValueError, match="write foo:10001, for example"):
        Endpoint.parse("foo", usual_port=10001)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_host_is_its_network(address: str, origin: str) -> None:
    assert origin_of(address) == origin
