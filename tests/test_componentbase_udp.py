"""UDP that is not cut on its way."""

import errno
import socket

import pytest

from componentbase.udp import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE, uncut
from tests.harness import netns


@pytest.mark.parametrize(
    ("family", "level", "option"),
    [
        (socket.AF_INET, socket.IPPROTO_IP, IP_MTU_DISCOVER),
        (socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
    ],
    ids=["IPv4", "IPv6"],
)
def test_the_kernel_is_told_by_the_family(family: int, level: int, option: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        assert sock.getsockopt(level, option) != PMTUDISC_PROBE
        uncut(sock)
        assert sock.getsockopt(level, option) == PMTUDISC_PROBE


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
def test_what_is_larger_than_the_interface_takes_does_not_leave() -> None:
    with netns.networks("10.78.0.1/24", "10.78.0.2/24") as networks:
        with networks.inside(netns.EDGE):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            assert sock.sendto(bytes(8952), ("10.78.0.1", 9)) == 8952, "in pieces, until it is told"
            uncut(sock)
            with pytest.raises(OSError, match="Message too long") as refused:
                sock.sendto(bytes(8952), ("10.78.0.1", 9))
            assert refused.value.errno == errno.EMSGSIZE
            assert sock.sendto(bytes(1452), ("10.78.0.1", 9)) == 1452
