"""
The broker without sockets: connections, who gets which message, and when a publisher is told that it was taken.

The durable client
    One client id may be named durable: edgecore's own, which stores what it is sent and acknowledges after its commit.
    A publication of QoS 1 or 2 that its session receives with QoS 1 or 2 is acknowledged to the publisher (PUBACK,
    PUBREC) only once the durable client has acknowledged it (PUBACK, or PUBCOMP for QoS 2). So an acknowledged report
    survives a kill -9 of the broker, although the broker itself keeps nothing on disk: whatever was not acknowledged,
    its publisher still has, and sends again.

    offline       The session exists from the start (config.durable_filters), so publications are queued for it and stay
                  unacknowledged until it is back. It gets them then, and the publishers their answers.
    queue full    It never drops a publisher's message. A publication that does not fit stays where it came from: the
                  broker stops reading that connection, and goes on once the queue is half empty. Pings behind such a
                  message are not answered, so a client that gives up and comes back is normal; the keepalive deadline
                  runs on, or connections of clients that are gone would pile up unseen.
    sent again    A repeat with DUP of a publication that still waits joins the first if the publisher's session is
                  persistent, and is a new message if it is not: at least once, not exactly once.
    not held      What the durable client publishes itself (its answers must be read for anything to go on), wills
                  (nobody waits for their acknowledgement), and QoS 0.
    order         Acknowledgements leave in the order of the publications [MQTT-4.6.0-2], so one that waits holds back
                  those behind it on the same connection, and no other connection's.

Invariants
    a session has at most one connection; a connection that was closed is never answered again
    whatever bytes arrive, receive() answers with effects and does not raise
    effects are in the order in which they must be performed

Where mosquitto and the standard differ, the standard: a connection taken over by a new one of the same client publishes
its will ([MQTT-3.1.2-8]; mosquitto skips it when both ask for a persistent session).

Logins
    Who may do what is access.py's; here it is asked: for a CONNECT and its will, for each publication, and for each
    reader of a message. A refused publication is acknowledged and dropped, as mosquitto does, for MQTT 3.1.1 has no
    other answer than to hang up, and a client that is hung up on sends it again for ever. It is counted, and logged
    once a minute and client.
    A password takes the shell a while (Verify, then verified()). Until then the connection is not read. A wrong one is
    answered a second later, and meanwhile counts as a login under way, of which there are max_logins_per_peer: so many
    guesses a second has one address, whatever it does. More at once are told to come again (SERVER_UNAVAILABLE).
    A session is its user's: another one who gives its client id is refused, or gets a new one where it was anonymous.

Pure state: no clock, no I/O. `now` is any monotonic clock in seconds. The shell is server.py.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from devicetwin.broker.access import ANONYMOUS, EDGE, Access, Account
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.packets import (
    SUBSCRIBE_FAILED,
    Connack,
    Connect,
    ConnectCode,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolError,
    ProtocolViolation,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedVersion,
    Will,
    encode,
    encode_publish,
)
from devicetwin.broker.retained import RetainedMessages
from devicetwin.broker.session import Delivery, Message, Owed, Session, Window, acknowledgement
from devicetwin.broker.topics import SubscriptionTrie

logger = logging.getLogger(__name__)

LOGIN_PENALTY_S = 1.0  # from a wrong password to its answer
DENIED_EVERY_S = 60.0  # between two log lines about one connection's refused publications
MAX_CLIENT_ID = 256  # characters; the standard asks for 23 at least, and ids are kept as long as their sessions

_PINGRESP = encode(Pingresp())


class Connection:
    """One network connection as the core sees it. The shell makes none of its own and reads only `client_id`."""

    __slots__ = (
        "closed",
        "decoder",
        "denied_noted_at",
        "has_stalled",
        "heard_at",
        "inside",
        "keepalive_s",
        "login",
        "peer",
        "session",
        "stalled",
        "will",
    )

    def __init__(self, decoder: Decoder, now: float, peer: str, inside: bool) -> None:
        self.peer = peer
        """Its address: who shares the bound on logins."""
        self.inside = inside
        """It did not come through the listener: edgecore's own."""
        self.login: Connect | None = None
        """What it wants once its password has been verified; nothing behind it is decoded until then."""
        self.denied_noted_at = -DENIED_EVERY_S
        self.decoder = decoder
        self.heard_at = now
        self.session: Session | None = None
        """None until CONNECT was accepted."""
        self.keepalive_s = 0
        self.will: Will | None = None
        self.stalled: Publish | None = None
        """A publication that waits for room with the durable client; nothing behind it is decoded until then."""
        self.has_stalled = False
        """It had to wait before. Who floods does so several times a second: that is told once."""
        self.closed = False

    @property
    def client_id(self) -> str:
        return self.session.client_id if self.session is not None else ""


class Send(NamedTuple):
    """Write these bytes."""

    connection: Connection
    data: bytes


class Close(NamedTuple):
    """Write what is to be written and close. The core has forgotten the connection already."""

    connection: Connection
    reason: str


class Verify(NamedTuple):
    """Find out whether this is the user's password, and call verified()."""

    connection: Connection
    username: str
    password: bytes


class Pause(NamedTuple):
    """Stop reading."""

    connection: Connection


class Resume(NamedTuple):
    """Read again."""

    connection: Connection


Effect: TypeAlias = Send | Close | Pause | Resume | Verify


class Broker:
    """Every method that changes something answers with the effects to perform."""

    def __init__(
        self,
        config: BrokerConfig,
        access: Access | None = None,
        recall: Callable[[str, bytes], Account | None] = lambda username, password: None,
    ) -> None:
        """recall: the account, if this password is known to be right already; must cost next to nothing."""
        self._recall = recall
        self.denied = 0
        """Publications that their senders had no right to make."""
        self.logins_refused = 0
        self._config = config
        self._access = access or Access()
        self._logins: dict[str, int] = {}
        """By address: logins under way, those that wait for their refusal included."""
        self._penalties: dict[Connection, float] = {}
        """Wrong logins, and when to say so."""
        self._window = Window(
            config.max_inflight, config.max_inflight_bytes, config.max_queued, config.max_queued_bytes
        )
        self._connections: dict[Session, Connection] = {}
        self._greeting: set[Connection] = set()
        """Open, but CONNECT has not come."""
        self._sessions: dict[str, Session] = {}
        """By client id; the one that went offline first comes first among those that are offline."""
        self._subscriptions: SubscriptionTrie[Session] = SubscriptionTrie()
        self._retained = RetainedMessages(config.max_retained, config.max_retained_bytes)
        self._stalled: dict[Connection, None] = {}
        """In the order in which they stalled."""
        self._anonymous = 0
        self._effects: list[Effect] = []
        self._durable: Session | None = None
        if config.durable_client_id:
            window = replace(self._window, max_inflight=config.durable_inflight)
            self._durable = self._new_session(config.durable_client_id, False, EDGE, window)
            for topic_filter in config.durable_filters:
                self._durable.subscriptions[topic_filter] = 1
                self._subscriptions.add(topic_filter, self._durable, 1)

    # -- what the shell calls ---------------------------------------------------------------------------------------

    @property
    def connection_count(self) -> int:
        return len(self._connections) + len(self._greeting)

    def open(self, now: float, peer: str = "", *, inside: bool = False) -> Connection | None:
        """A connection opened; None if there are too many already and it is to be closed. For one inside never."""
        if self.connection_count >= self._config.max_connections and not inside:
            return None
        connection = Connection(Decoder(self._config.max_packet_bytes), now, peer, inside)
        self._greeting.add(connection)
        return connection

    def receive(self, connection: Connection, data: bytes | memoryview, now: float) -> list[Effect]:
        """Bytes came. `data` is copied."""
        if connection.closed:
            return []
        if connection.session is not None:
            connection.heard_at = now
        connection.decoder.feed(data)
        self._drain(connection, now)
        return self._take_effects()

    def verified(self, connection: Connection, account: Account | None, now: float) -> list[Effect]:
        """The answer to Verify: whose password it was, None if nobody's."""
        packet, connection.login = connection.login, None
        if account is not None and self._access.users.get(account.name) == account:
            self._end_login(connection.peer)
            if packet is not None and not connection.closed:
                self._effects.append(Resume(connection))
                self._enter(connection, packet, account, now)
                self._drain(connection, now)
        else:
            self._penalties[connection] = now + LOGIN_PENALTY_S
        return self._take_effects()

    def adopt(self, access: Access) -> list[Effect]:
        """Users came, changed or left: those of the last two begin anew, with what they may do now."""
        self._access = access
        for session in list(self._sessions.values()):
            account = session.account
            if account.name and access.users.get(account.name) != account:
                if (connection := self._connections.get(session)) is not None:
                    self._drop(connection, "its user was changed or deleted")
                if session.client_id in self._sessions:
                    self._forget(session)
        return self._take_effects()

    def lost(self, connection: Connection) -> list[Effect]:
        """The connection is gone without a DISCONNECT."""
        if not connection.closed:
            self._detach(connection)
            self._publish_will(connection)
        return self._take_effects()

    def choke(self, connection: Connection) -> None:
        """The client does not read: QoS 0 for it is dropped, the rest waits in its queue."""
        if connection.session is not None and not connection.closed:
            connection.session.choke()

    def unchoke(self, connection: Connection) -> list[Effect]:
        """The client reads again."""
        if connection.session is not None and not connection.closed:
            self._send_all(connection, connection.session.unchoke())
        return self._take_effects()

    def expire(self, now: float) -> list[Effect]:
        """Close who has been silent too long. To be called about once a second: keepalives are whole seconds."""
        late = [c for c in self._greeting if now - c.heard_at >= self._config.connect_timeout_s]
        # "If the Keep Alive value is non-zero and the Server does not receive a Control Packet from the Client within
        # one and a half times the Keep Alive time period, it MUST disconnect" [MQTT-3.1.2-24].
        late += [c for c in self._connections.values() if c.keepalive_s and now - c.heard_at >= 1.5 * c.keepalive_s]
        for connection in late:
            self._drop(connection, "keepalive expired" if connection.session else "no CONNECT in time")
        for connection in [each for each, until in self._penalties.items() if now >= until]:
            del self._penalties[connection]
            self._end_login(connection.peer)
            self._refuse(connection, ConnectCode.BAD_CREDENTIALS, "wrong user or password")
        return self._take_effects()

    def stop(self) -> list[Effect]:
        """
        Close every connection, without wills.

        "In the case of a Server shutdown or failure, the server MAY defer publication of Will Messages until a
        subsequent restart" (section 3.1.2.5). mosquitto publishes them, for its subscribers on disk; ours have nobody
        left to read them but edgecore, which is stopping too and would record every device as dead.
        """
        for connection in [*self._greeting, *self._connections.values()]:
            self._effects.append(Close(connection, "broker stops"))
            self._detach(connection)
        return self._take_effects()

    # -- packets ----------------------------------------------------------------------------------------------------

    def _drain(self, connection: Connection, now: float) -> None:
        """Handle every whole packet, up to one that stalls or ends the connection."""
        try:
            while connection.stalled is None and connection.login is None and not connection.closed:
                packet = connection.decoder.next()
                if packet is None:
                    return
                self._handle(connection, packet, now)
        except UnsupportedVersion as exc:
            if connection.session is None and exc.answerable:
                self._send(connection, encode(Connack(False, ConnectCode.UNACCEPTABLE_VERSION)))
            self._drop(connection, str(exc))
        except ProtocolError as exc:
            self._drop(connection, str(exc))

    def _handle(self, connection: Connection, packet: Packet, now: float) -> None:
        session = connection.session
        if session is None:
            if not isinstance(packet, Connect):
                raise ProtocolViolation("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
            self._connect(connection, packet, now)
            return
        match packet:
            case Publish():
                self._publish(connection, session, packet, now)
            case Puback() | Pubrec() | Pubcomp():
                packets, freed = session.settle(packet)
                self._send_all(connection, packets)
                if freed is not None:
                    self._free(freed)
                if session is self._durable and self._stalled:
                    self._resume_stalled(now)
            case Pubrel(packet_id):
                session.received.discard(packet_id)
                self._send(connection, encode(Pubcomp(packet_id)))
            case Pingreq():
                self._send(connection, _PINGRESP)
            case Subscribe():
                self._subscribe(connection, session, packet)
            case Unsubscribe(packet_id, filters):
                for topic_filter in filters:
                    self._subscriptions.remove(topic_filter, session)
                    session.subscriptions.pop(topic_filter, None)
                self._send(connection, encode(Unsuback(packet_id)))
            case Disconnect():
                connection.will = None  # [MQTT-3.14.4-3]
                self._drop(connection, "client disconnected")
            case _:
                raise ProtocolViolation(f"{type(packet).__name__.upper()} from a client in a session")

    def _connect(self, connection: Connection, packet: Connect, now: float) -> None:
        users = self._access.users
        if connection.inside:
            self._enter(connection, packet, EDGE, now)
        elif packet.username is not None and (users or not self._access.anonymous):
            known = self._recall(packet.username, packet.password or b"")
            if known is not None and users.get(known.name) == known:
                # Before the bounds, so that nobody who guesses keeps a mapper away that was here before.
                self._enter(connection, packet, known, now)
                return
            if self._logins.get(connection.peer, 0) >= self._config.max_logins_per_peer or (
                sum(self._logins.values()) >= self._config.max_logins
            ):
                self._refuse(connection, ConnectCode.SERVER_UNAVAILABLE, "too many logins at once")
                return
            self._logins[connection.peer] = self._logins.get(connection.peer, 0) + 1
            connection.login = packet
            self._effects.append(Pause(connection))
            self._effects.append(Verify(connection, packet.username, packet.password or b""))
        elif self._access.anonymous:
            # A name is taken for none where nobody has one; so does mosquitto without a password file.
            self._enter(connection, packet, ANONYMOUS, now)
        else:
            self._refuse(connection, ConnectCode.NOT_AUTHORIZED, "anonymous, and only users may come")

    def _enter(self, connection: Connection, packet: Connect, account: Account, now: float) -> None:
        """The client is who it says: it gets its session."""
        client_id, code = packet.client_id, ConnectCode.ACCEPTED
        if not client_id:
            if packet.level == 3 or not packet.clean_session:
                code = ConnectCode.IDENTIFIER_REJECTED  # [MQTT-3.1.3-8]; 3.1 knows no empty id
            client_id = self._name_anonymous()
        elif len(client_id) > MAX_CLIENT_ID:
            code = ConnectCode.IDENTIFIER_REJECTED
        elif client_id == self._config.durable_client_id and (packet.clean_session or not account.is_edge):
            # A clean durable session would let go of everything its publishers wait for: edgecore's mistake. And what
            # the durable client acknowledges counts as stored: nobody else may do that.
            code = ConnectCode.IDENTIFIER_REJECTED
        if code is not ConnectCode.ACCEPTED:
            self._refuse(connection, code, "client id refused")
            return
        session = self._sessions.get(client_id)
        if session is not None and session.account != account and not session.account.is_anonymous:
            self._refuse(connection, ConnectCode.NOT_AUTHORIZED, "the client id is another user's")
            return
        if packet.will is not None and not account.may_publish(packet.will.topic, packet.will.payload):
            # Refused now, while somebody reads the answer, and not when it is too late.
            self._refuse(connection, ConnectCode.NOT_AUTHORIZED, "no right to its will's topic")
            return

        if session is not None and (old := self._connections.get(session)) is not None:
            self._drop(old, "session taken over")  # [MQTT-3.1.4-2]
            session = self._sessions.get(client_id)
        if session is not None and (packet.clean_session or session.account != account):
            self._forget(session)
            session = None
        present = session is not None
        if session is None:
            session = self._new_session(client_id, packet.clean_session, account, self._window)

        self._greeting.discard(connection)
        self._connections[session] = connection
        connection.session = session
        connection.heard_at = now
        connection.keepalive_s = packet.keepalive_s
        connection.will = packet.will
        self._send(connection, encode(Connack(present, ConnectCode.ACCEPTED)))
        self._send_all(connection, session.attach(packet.clean_session))

    def _refuse(self, connection: Connection, code: ConnectCode, reason: str) -> None:
        if connection.closed:
            return
        if code is not ConnectCode.IDENTIFIER_REJECTED:
            self.logins_refused += 1
        self._send(connection, encode(Connack(False, code)))
        self._drop(connection, reason)

    def _end_login(self, peer: str) -> None:
        left = self._logins.pop(peer) - 1
        if left:
            self._logins[peer] = left

    def _publish(self, connection: Connection, session: Session, packet: Publish, now: float) -> None:
        packet_id = packet.packet_id
        if packet.qos == 2 and packet_id in session.received:
            if packet_id not in session.owed:
                self._send(connection, acknowledgement(packet_id, 2))
            return
        if packet.qos == 1 and packet.dup and packet_id in session.owed:
            return

        may = session.account.may_publish(packet.topic, packet.payload)
        matched = self._subscriptions.match(packet.topic) if may else {}
        durable = self._durable
        waits = packet.qos > 0 and durable is not None and session is not durable and matched.get(durable, 0) > 0
        if (waits and durable is not None and durable.is_full()) or len(session.owed) >= self._config.max_queued:
            self._stall(connection, packet)
            return

        owed: Owed | None = None
        if packet.qos:
            if packet.qos == 2:
                session.received.add(packet_id)
            if waits or session.owed:
                owed = session.owe(packet_id, packet.qos, waits)
            else:
                self._send(connection, acknowledgement(packet_id, packet.qos))
        if not may:
            self._note_denied(connection, packet.topic, now)
            return
        message = Message(packet.topic, packet.payload, packet.qos)
        if packet.retain:
            self._retain(message)
        self._route(message, matched, owed if waits else None)

    def _note_denied(self, connection: Connection, topic: str, now: float) -> None:
        self.denied += 1
        if now - connection.denied_noted_at >= DENIED_EVERY_S:
            connection.denied_noted_at = now
            session = connection.session
            user = session.account.name if session is not None else ""
            facts = {"client": connection.client_id, "user": user or "anonymous", "topic": topic}
            logger.warning("mqtt client has no right to publish there, dropped", extra=facts)

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        codes = []
        for topic_filter, qos in packet.filters:
            full = len(session.subscriptions) >= self._config.max_subscriptions
            if not session.account.may_subscribe(topic_filter) or (full and topic_filter not in session.subscriptions):
                codes.append(SUBSCRIBE_FAILED)
                continue
            session.subscriptions[topic_filter] = qos
            self._subscriptions.add(topic_filter, session, qos)
            codes.append(qos)
        self._send(connection, encode(Suback(packet.packet_id, tuple(codes))))
        for (topic_filter, qos), code in zip(packet.filters, codes, strict=True):
            if code != SUBSCRIBE_FAILED:
                self._send_retained(connection, session, topic_filter, qos)

    def _send_retained(self, connection: Connection, session: Session, topic_filter: str, granted: int) -> None:
        for message in self._retained.matching(topic_filter):
            if not session.account.may_read(message.topic):
                continue
            qos = min(granted, message.qos)
            if qos == 0:
                # Sent even to a client that counts as slow: it would never learn what it missed.
                self._send(connection, encode_publish(Publish(message.topic, message.payload, retain=True)))
                continue
            data = session.offer(Delivery(message, qos, retain=True), allowance=self._config.max_retained)
            if data is not None:
                self._send(connection, data)

    # -- messages ---------------------------------------------------------------------------------------------------

    def _route(self, message: Message, matched: Mapping[Session, int], owed: Owed | None = None) -> None:
        """Give a message to its subscribers. `owed` is what waits for the durable one among them."""
        plain: bytes | None = None
        for session, granted in matched.items():
            if not session.account.may_read(message.topic):
                continue
            connection = self._connections.get(session)
            qos = granted if granted < message.qos else message.qos
            if qos == 0:
                if connection is not None and session.writable:
                    if plain is None:
                        plain = encode_publish(Publish(message.topic, message.payload))
                    self._send(connection, plain)
                elif connection is not None:
                    self._note_dropped(session)
                continue
            dropped = session.dropped
            data = session.offer(Delivery(message, qos, owed=owed if session is self._durable else None))
            if data is not None and connection is not None:
                self._send(connection, data)
            elif session.dropped > dropped:
                session.dropped = dropped
                self._note_dropped(session)

    def _retain(self, message: Message) -> None:
        if not self._retained.keep(message):
            logger.warning("retained messages are full, not retained", extra={"topic": message.topic})

    def _note_dropped(self, session: Session) -> None:
        session.dropped += 1
        if session.dropped & (session.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood logs a handful of lines
            logger.warning(
                "client is too slow or away too long, messages dropped",
                extra={"client": session.client_id, "dropped": session.dropped},
            )

    def _publish_will(self, connection: Connection) -> None:
        will, connection.will = connection.will, None
        if will is None:
            return
        message = Message(will.topic, will.payload, will.qos)
        if will.retain:
            self._retain(message)
        self._route(message, self._subscriptions.match(will.topic))

    def _free(self, owed: Owed) -> None:
        """The durable client has acknowledged a message: so may we, to whoever published it."""
        owed.waiting = False
        publisher = owed.session
        packets = publisher.pay()
        connection = self._connections.get(publisher)
        if connection is not None:
            self._send_all(connection, packets)

    def _stall(self, connection: Connection, packet: Publish) -> None:
        connection.stalled = packet
        self._stalled[connection] = None
        self._effects.append(Pause(connection))
        level = logging.DEBUG if connection.has_stalled else logging.INFO
        logger.log(level, "publisher has to wait for the durable client", extra={"client": connection.client_id})
        connection.has_stalled = True

    def _resume_stalled(self, now: float) -> None:
        assert self._durable is not None, "only a durable client makes others wait"
        for connection in list(self._stalled):
            if not self._durable.has_room():
                return
            if connection not in self._stalled:
                continue  # one before it in this loop ended it
            session, packet = connection.session, connection.stalled
            assert session is not None, "a connection publishes before it has a session"
            assert packet is not None, "a stalled connection holds no packet"
            if len(session.owed) * 2 > self._config.max_queued:
                continue
            del self._stalled[connection]
            connection.stalled = None
            connection.heard_at = now
            self._effects.append(Resume(connection))
            self._publish(connection, session, packet, now)
            self._drain(connection, now)

    # -- sessions and connections -----------------------------------------------------------------------------------

    def _new_session(self, client_id: str, clean: bool, account: Account, window: Window) -> Session:
        if len(self._sessions) >= self._config.max_sessions:
            # There is one offline: each connection has one session, and max_connections <= max_sessions.
            oldest = next((s for s in self._sessions.values() if not s.attached and s is not self._durable), None)
            if oldest is not None:
                logger.warning("too many sessions, the longest offline forgotten", extra={"client": oldest.client_id})
                self._forget(oldest)
        session = self._sessions[client_id] = Session(client_id, clean, window, account)
        return session

    def _forget(self, session: Session) -> None:
        del self._sessions[session.client_id]
        for topic_filter in session.subscriptions:
            self._subscriptions.remove(topic_filter, session)

    def _name_anonymous(self) -> str:
        while True:
            self._anonymous += 1
            client_id = f"anonymous-{self._anonymous}"
            if client_id not in self._sessions:
                return client_id

    def _drop(self, connection: Connection, reason: str) -> None:
        """Close a connection ourselves; its will is published unless a DISCONNECT took it back."""
        if connection.closed:
            return
        self._effects.append(Close(connection, reason))
        self._detach(connection)
        self._publish_will(connection)

    def _detach(self, connection: Connection) -> None:
        connection.closed = True
        connection.stalled = None
        self._stalled.pop(connection, None)
        self._greeting.discard(connection)
        session = connection.session
        if session is None:
            return
        del self._connections[session]
        session.detach()
        if session.clean:
            self._forget(session)
        else:
            self._sessions[session.client_id] = self._sessions.pop(session.client_id)

    # -- effects ----------------------------------------------------------------------------------------------------

    def _send(self, connection: Connection, data: bytes) -> None:
        self._effects.append(Send(connection, data))

    def _send_all(self, connection: Connection, packets: list[bytes]) -> None:
        for data in packets:
            self._effects.append(Send(connection, data))

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
