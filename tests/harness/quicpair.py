"""Two ends of a QUIC connection, and the packets between carried by hand, in a time of their own."""

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch, State

from link.lanes import LANES, OPENER
from link.quiccore import Connection
from link.quictickets import Ticket, Tickets
from tests.harness.quic import RESET_KEY, Certificates

CLIENT, SERVER = ("10.0.0.1", 1), ("10.0.0.2", 2)


class Pair:
    """A node's end and a hub's, the handshake done, all lanes open."""

    def __init__(
        self,
        certificates: Certificates,
        *,
        shown: bytes | None = None,
        tickets: Tickets | None = None,
        former: Ticket | None = None,
    ) -> None:
        """tickets: what the hub knows, where it gives any. former: the node's."""
        assert certificates.hub.now is not None
        self.now = 0.0
        node = certificates.node(shown).configuration
        node.server_name = "127.0.0.1"
        self.edge = Connection(node, former=former)
        self.hub = Connection(
            certificates.hub.now.configuration,
            original_destination_connection_id=self.edge.original_destination_connection_id,
            reset_key=RESET_KEY,
            find=None if tickets is None else tickets.take,
        )
        self.edge.connect(SERVER, self.now)
        self.carried: dict[Connection, list[int]] = {self.edge: [], self.hub: []}
        """How many bytes each packet had, by who sent it."""
        self.round_trips = 0
        """Until the edge may say something."""
        for _ in range(5):
            self.round_trips += self.edge.tls.state is not State.CLIENT_POST_HANDSHAKE
            self.carry()
        for lane in LANES:
            self.edge.write(lane, OPENER)
        self.carry()
        self.events = {self.edge: list(events(self.edge)), self.hub: list(events(self.hub))}

    def sent(self, sender: Connection) -> list[bytes]:
        """What it puts on the wire now."""
        self.now += 0.02
        return [data for data, _ in sender.datagrams_to_send(self.now)]

    def deliver(self, receiver: Connection, packets: list[bytes]) -> list[QuicEvent]:
        for packet in packets:
            receiver.receive_datagram(packet, SERVER if receiver is self.edge else CLIENT, self.now)
        return list(events(receiver))

    def forged(self, payload: bytes) -> bytes:
        """A packet of the edge's with this in it."""
        edge = self.edge
        builder = QuicPacketBuilder(
            host_cid=edge.host_cid,
            is_client=True,
            max_datagram_size=1200,
            packet_number=edge._packet_number,
            peer_cid=edge._peer_cid.cid,
            version=edge._version or 1,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, edge._cryptos[Epoch.ONE_RTT])
        builder.start_frame(payload[0] & 0x3F, capacity=len(payload)).push_bytes(payload[1:])
        edge._packet_number += 1
        return builder.flush()[0][0]

    def carry(self) -> None:
        """Everything, both ways, without a look at what comes of it."""
        for sender, receiver in ((self.edge, self.hub), (self.hub, self.edge)):
            for packet in self.sent(sender):
                self.carried[sender].append(len(packet))
                receiver.receive_datagram(packet, SERVER if receiver is self.edge else CLIENT, self.now)

    def carry_up_to(self, most: int, rounds: int, source: tuple[str, int] = CLIENT) -> list[int]:
        """
        Everything that is no larger, both ways, with timers and what is tried; the size of each packet that was sent.

        source: where the edge is now.
        """
        sizes = []
        for _ in range(rounds):
            self.now += 0.02
            for sender, receiver in ((self.hub, self.edge), (self.edge, self.hub)):
                if (at := sender.get_timer()) is not None and at <= self.now:
                    sender.handle_timer(self.now)
                for data, address in sender.packets(self.now, acknowledge=True):
                    sizes.append(len(data))
                    if len(data) <= most and (sender is self.edge or address == source):
                        receiver.receive_datagram(data, SERVER if receiver is self.edge else source, self.now)
                receiver.credit.taken += sum(
                    len(each.data) for each in events(receiver) if isinstance(each, StreamDataReceived)
                )
        return sizes

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.carry()
            for side in (self.edge, self.hub):
                side.credit.taken += sum(
                    len(each.data) for each in events(side) if isinstance(each, StreamDataReceived)
                )


def events(connection: QuicConnection) -> list[QuicEvent]:
    return list(iter(connection.next_event, None))
