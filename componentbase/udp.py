"""What UDP sockets are told, whoever uses them."""

import contextlib
import socket
import sys

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # linux/in.h and in6.h; Python's socket has no names


def uncut(sock: socket.socket) -> None:
    """
    Have packets arrive as they are or not at all, as QUIC's must (RFC 9000, section 14), and send any that the
    interface takes, whatever was heard of the way. Where the system is not Linux, or refuses, nothing is done.
    """
    if sys.platform == "linux":
        is_6 = sock.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if is_6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, PMTUDISC_PROBE)
