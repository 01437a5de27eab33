"""
What an operator may choose about the embedded broker, and the bounds that keep its memory small.

Every count and size a client could drive up has a bound here, and the comment on each says what happens at it.
"""

from dataclasses import dataclass

from devicetwin.broker.packets import MAX_REMAINING_LENGTH
from devicetwin.broker.topics import InvalidTopic, check_filter

_COUNTS = (
    "max_connections",
    "max_logins",
    "max_logins_per_peer",
    "max_sessions",
    "max_subscriptions",
    "max_inflight",
    "max_inflight_bytes",
    "durable_inflight",
    "max_queued",
    "max_queued_bytes",
    "max_retained",
    "max_retained_bytes",
    "write_high_bytes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """The embedded broker's settings. ValueError, naming the field, for one that makes no sense."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 1883
    """0 takes a free port."""

    durable_client_id: str = ""
    """
    The client whose acknowledgement a publisher's acknowledgement waits for ("" = none): edgecore's own, which
    acknowledges a report after its transaction has committed. core.py states the rule. Only a connection made inside
    the process may be it.
    """
    durable_filters: tuple[str, ...] = ()
    """
    Filters the durable client's session holds, at QoS 1, from the first moment: without them, what a mapper publishes
    between the broker's start and that client's first SUBSCRIBE would be acknowledged and kept by nobody.
    """

    connect_timeout_s: float = 10.0
    """A connection that has not sent CONNECT by then, or whose password is not verified, is closed."""
    max_logins_per_peer: int = 4
    """Passwords of one address under verification; one more is told to come again. So many guesses a second it has."""
    max_logins: int = 16
    """The same of all addresses together."""
    max_connections: int = 1000
    """One more is closed as soon as it opens."""
    max_sessions: int = 2000
    """One more evicts the session that has been offline longest. The durable client's is never evicted."""
    max_subscriptions: int = 1000
    """Filters per session; one more is answered with SUBACK 0x80."""
    max_packet_bytes: int = 256 * 1024
    """Of a packet's body. A longer packet closes its connection before its body is read."""
    max_inflight: int = 20
    """QoS 1 and 2 messages sent to a client and not yet acknowledged by it; mosquitto's default. The rest is queued."""
    max_inflight_bytes: int = 5 << 20
    """The same bound in bytes of topic and payload: twenty of the largest packets."""
    durable_inflight: int = 64
    """max_inflight of the durable client, which acknowledges after a commit: as many as it takes in with one."""
    max_queued: int = 1000
    """
    Messages queued per session behind its window, offline or slow; mosquitto's default. At the bound the newest is
    dropped, as mosquitto does; for the durable client's session publishers wait instead. It also bounds the
    publications of one client that wait for their acknowledgement.
    """
    max_queued_bytes: int = 4 << 20
    """The same bound in bytes of topic and payload."""
    max_retained: int = 10_000
    """Retained topics. At the bound a message is delivered but not retained."""
    max_retained_bytes: int = 4 << 20
    """The same bound in bytes of topic and payload."""
    write_high_bytes: int = 64 * 1024
    """
    Bytes a client has not read at which it counts as slow: QoS 0 messages for it are dropped, the others wait in its
    queue.
    """
    max_write_bytes: int = 16 << 20
    """
    Bytes a client has not read at which it is disconnected. Above the largest honest burst: all retained messages at
    QoS 0 and one window of the largest packets.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is not between 0 and 65535")
        if not self.connect_timeout_s > 0:
            raise ValueError(f"connect_timeout_s: {self.connect_timeout_s} is not more than 0")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        if not 16 <= self.max_packet_bytes <= MAX_REMAINING_LENGTH:
            raise ValueError(f"max_packet_bytes: {self.max_packet_bytes} is not between 16 and {MAX_REMAINING_LENGTH}")
        for name in ("max_inflight", "durable_inflight"):
            if getattr(self, name) > 65535:
                raise ValueError(f"{name}: {getattr(self, name)} is more than there are packet ids, 65535")
        if self.max_sessions < self.max_connections:
            raise ValueError("max_sessions: less than max_connections, but every connection needs a session")
        if self.max_write_bytes < self.write_high_bytes:
            raise ValueError("max_write_bytes: less than write_high_bytes")
        if self.durable_filters and not self.durable_client_id:
            raise ValueError("durable_filters: given without a durable_client_id")
        for topic_filter in self.durable_filters:
            try:
                check_filter(topic_filter)
            except InvalidTopic as exc:
                raise ValueError(f"durable_filters: {topic_filter!r}: {exc}") from exc
