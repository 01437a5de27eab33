"""
What is fuzzed: each target takes any bytes, and raises only where something is wrong with us.

A target is what a stranger's bytes meet first, and what they meet next if that lets them through. The mutations
are tests.fuzz.loop's; a coverage-guided fuzzer can drive the same functions (docs/limits.md says how).
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from apimachinery.errors import ApiError
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object, canonical
from apimachinery.resources import CONFIG_MAPS, DEVICES, EVENTS, NODES, PODS
from apimachinery.selectors import parse_fields, parse_labels
from apiserver import patches, protobuf, requests, yamlbodies
from cloudhub.join import _read as read_join
from cloudhub.nodecalls import NodeCalls
from cloudhub.passing import checked
from cloudhub.reportvalues import parse
from componentbase import pki
from devicetwin.broker.packets import Connack, Decoder, ProtocolError, Puback, Publish, Suback, encode
from devicetwin.messages import Ask, MapperState, StateUpdate, TwinUpdate
from devicetwin.mqttclient import BrokerRefusal, MqttClient
from devicetwin.payloads import MessageError
from link import codec, pushcodec, tags
from link.errors import LinkClosed, LinkError, LocalProtocolError, RemoteProtocolError
from link.frames import (
    PROTOCOL,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Lane,
    Nack,
    Part,
    Ping,
    Pong,
    Position,
    Push,
    Refusal,
    RefusedEntry,
    RefusedInterest,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.lanes import LANES, Inbox
from link.lanes import framed as framed_on_lane
from link.packing import REACH, Unpackable, pack, pack_against, unpack, unpack_against
from link.peer import TRANSITIONS, Peer, Role, State, meaning
from link.wsframes import Cutter, framed, masked
from metamanager.intake import intake
from tests.fuzz import sessions

Run = Callable[[bytes], None]

POD = ObjectKey(PODS, "default", "web-1")
NODE = ObjectKey(NODES, "", "edge-1")
DEVICE = ObjectKey(DEVICES, "default", "thermo-1")
EVENT = ObjectKey(EVENTS, "default", "thermo-1.1")
VERSION = ObjectVersion("6f1c0f0e-2f2e-4a53-9a6b-0d2f5b0a8f11", "c29d5f3f8f3bd0ad")
INTEREST = Interest(CONFIG_MAPS, "default", "", "system:serviceaccount:default:web")
BODY = canonical({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "default"}, "spec": {}})
CALL = CallHead("PATCH", "/api/v1/namespaces/default/pods/web-1?dryRun=All", "", "application/json", "*/*", "a", "k")

FRAMES: tuple[Frame, ...] = (
    Hello(PROTOCOL, "edge-1", Cursor("e", 7), b"d" * 32, "test", 3, (Position("pods", 12),), (INTEREST,)),
    Hello(PROTOCOL, "edge-1", None, b"", "test", 1),
    Welcome("epoch", 0, False, 20.0),
    Welcome("epoch", 0, True, 0.5),
    Inventory((Held(POD, VERSION), Held(NODE, VERSION)), False),
    Inventory((), True),
    Push(1, (Delta(POD, VERSION, BODY), Delta(NODE, None, b"")), True, (Position("pods", 12),)),
    Push(
        2,
        (Delta(POD, VERSION, pack(BODY), "", len(BODY)), Delta(POD, VERSION, pack(BODY, BODY), "b", len(BODY))),
        False,
    ),
    *(Ack(1), Ack(2), Ack(300), Ack(70_000), Ack(2**40)),
    Nack(1, (Refusal(POD, "no", True), Refusal(NODE, "never"))),
    Check(1, b"d" * 32),
    Report(1, (ReportEntry(DEVICE, "property/temperature", b'{"value":"21"}'), ReportEntry(NODE, "nodeInfo", b"{}"))),
    Report(3, (ReportEntry(EVENT, "event", b"{}"),)),
    Report(1, (ReportEntry(DEVICE, "state", b"{}"),), Traffic.DEVICES),
    ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 1),), (RefusedEntry(2, "no"),)),
    *(ReportAck(Traffic.DEVICES, (), (), (Span(1, 1),)), Part(1, 9, b"x"), Push(3, (), False, (), 1)),
    *(Wanted(1, (INTEREST,)), Wanted(2, ())),
    Granted(1, (RefusedInterest(INTEREST, 403, "no"),), (CONFIG_MAPS,)),
    *(Call(1, CALL, b"{}", True), Call(2, CALL, b"{", False), Call(2, None, b"}", True)),
    *(Answer(1, AnswerHead(200, "application/json", 1.0, ("w",), "r"), b"{}", True), Answer(2, None, b"x", True)),
    *(Taken(1), Taken(2), Cancel(1), Cancel(2), Ping(1), Pong(1)),
    Goodbye(GoodbyeCode.OVERLOADED, "later", 1.0, 9),
)


class Target(NamedTuple):
    """One function that is fuzzed."""

    name: str
    run: Run
    seeds: tuple[bytes, ...]
    """Well-formed inputs, from which mutations begin."""
    words: tuple[bytes, ...] = ()
    """What is put in now and then."""


# The link


def frame(data: bytes) -> None:
    """The frame decoder; what it takes in can be said and is then the same."""
    try:
        found = codec.decode(data)
    except RemoteProtocolError:
        return
    meaning(found)
    try:
        again = codec.decode(codec.encode(found))
    except LocalProtocolError:
        return  # of a Report that is too large to be sent, as it may be when it is written in the shortest way
    assert type(again) is type(found)


def delta(data: bytes) -> None:
    """A pushed object, until the store would have it."""
    try:
        found = pushcodec.decode_delta(data)
    except RemoteProtocolError:
        return
    assert pushcodec.decode_delta(pushcodec.encode_delta(found)) == found
    if found.version is not None:
        intake(found, Object(found.key, ObjectVersion(found.version.uid, found.base or "x"), {}, BODY))


_ENCODED = tuple(codec.encode(each) for each in FRAMES)


def conversation(data: bytes) -> None:
    """
    Any sequence of frames at either end, between things that this end says itself.

    Of each byte the low bits choose a frame; a high bit first changes a byte of it, or says something or lets time
    pass. What a peer lets through is in the table, and its windows add up.
    """
    if not data:
        return
    now = 0.0
    role = Role.HUB if data[0] & 1 else Role.EDGE
    peer, calls = Peer(role, now), NodeCalls()
    if role is Role.EDGE:
        peer.send(FRAMES[1], now)
    rest = iter(data[1:])
    for choice in rest:
        now += 0.001
        message = _ENCODED[choice % 64 % len(_ENCODED)]
        if choice >= 192:
            place, value = next(rest, 0), next(rest, 0)
            message = message[: place % len(message)] + bytes((value,)) + message[place % len(message) + 1 :]
        elif choice >= 128:
            _say(peer, choice, now)
        elif choice >= 64:
            now += choice
            if not _keeps_time(peer, now):
                return
        before = peer.state
        try:
            found = peer.receive(message, now)
            if isinstance(found, Call):
                calls.take(found, has_room=bool(choice & 1))
        except (RemoteProtocolError, LinkClosed):
            peer.close(GoodbyeCode.PROTOCOL, "no", now)
            assert peer.state is State.CLOSED
            return
        assert before is not State.CLOSED
        assert peer.state in TRANSITIONS.values()
        peer.frames_to_send()
        assert peer.push_room() >= 0 <= peer.report_room()
        assert (peer.next_deadline() is None) is (peer.state is State.CLOSED)


def _say(peer: Peer, choice: int, now: float) -> None:
    said: Frame
    match choice % 6:
        case 0 if peer.push_room() and peer.role is Role.HUB:
            peer.push([pushcodec.encode_delta(Delta(NODE, None, b""))], True, now)
            return
        case 1 if peer.report_room() and peer.role is Role.EDGE:
            peer.report((ReportEntry(NODE, "nodeInfo", b"{}"),), now)
            return
        case 2:
            said = Taken(peer.chunks_received)
        case 3:
            said = Welcome("e", 5, bool(choice & 8), 20.0)
        case 4:
            said = Ack(1)
        case _:
            said = Inventory((), True)
    try:
        peer.send(said, now)
    except LocalProtocolError:
        return


def _keeps_time(peer: Peer, now: float) -> bool:
    try:
        peer.handle_deadline(now)
    except LinkError:
        return False
    return True


def cutter(data: bytes) -> None:
    """The websocket cutter: however the stream is cut up, the same frames come out of it, and all of the stream."""
    if len(data) < 3:
        return
    must_mask, step, stream = bool(data[0] & 1), 1 + data[1], data[2:]
    whole = _frames(stream, must_mask, len(stream))
    parts = _frames(stream, must_mask, step)
    assert parts[1] == whole[1], "messages"
    assert parts[0] == whole[0], "all that was not a message"


def lanes(data: bytes) -> None:
    """QUIC's streams: however one is cut up, the same messages come out; every byte is taken, or waits until it is."""
    if len(data) < 3:
        return
    lane, step, stream = LANES[data[0] % len(LANES)], 1 + data[1], data[2:]
    assert _messages(lane, stream, step) == _messages(lane, stream, len(stream))


def _messages(lane: Lane, stream: bytes, step: int) -> tuple[list[bytes], bool]:
    inbox, is_refused, fed = Inbox(), False, 0
    for start in range(0, len(stream), step):
        try:
            inbox.feed(lane, stream[start : start + step])
        except RemoteProtocolError:
            is_refused = True
            break
        fed = len(stream[: start + step])
        # Before the handshake is over a part of a message is taken of CONTROL only.
        held_back = 0 if lane is Lane.CONTROL else len(inbox._partial[lane])
        assert inbox.taken_bytes + inbox.waiting_bytes + held_back == fed
    messages = list(iter(lambda: inbox.next(True), None))
    assert is_refused or inbox.taken_bytes == fed, "what was handed on, and the rest once it may be, is taken"
    return messages, is_refused


def _frames(stream: bytes, must_mask: bool, step: int) -> tuple[bytes, list[bytes]]:
    found, other, messages = Cutter(must_mask, 1 << 16), b"", []
    for start in range(0, len(stream), step):
        piece = stream[start : start + step]
        if (message := found.whole(piece)) is not None:
            messages.append(message)
            continue
        found.feed(piece)
        while (taken := found.next(plain=True)) is not None:
            is_message, content = taken
            if is_message:
                messages.append(content)
            else:
                other += content
    return other, messages


def unpacking(data: bytes) -> None:
    """Packed bodies: never more than was said, whatever the stream says."""
    if len(data) < 4:
        return
    size, held = int.from_bytes(data[:2]), BODY if data[2] & 1 else BODY * (1 + REACH // len(BODY))
    for made, dictionary in ((unpack, held[:REACH]), (unpack_against, held)):
        try:
            assert len(made(data[3:], size, dictionary)) == size
        except Unpackable:
            continue


# The hub


def join_body(data: bytes) -> None:
    """What is sent to the join endpoint, and the signing request in it."""
    try:
        asked = read_join(data)
    except ApiError:
        return
    try:
        pki.sign_client_csr(_AUTHORITY, asked.csr, f"system:node:{asked.node}", "system:nodes", 1)
    except pki.PkiError:
        return


_ENTRIES = ((DEVICE, "property/temperature"), (DEVICE, "state"), (NODE, "nodeInfo"), (EVENT, "event"), (POD, "x"))


def report_value(data: bytes) -> None:
    """The value of a report: what is taken in can be written as JSON."""
    for key, field in _ENTRIES:
        try:
            parse(ReportEntry(key, field, data))
        except ValueError:
            continue


def call(data: bytes) -> None:
    """A request that is to be passed on to the apiserver."""
    texts = [part.decode("latin-1") for part in data.split(b"\n")] + [""] * 4
    try:
        checked(CallHead(texts[0], texts[1], "", texts[2], texts[3], "", ""))
    except ApiError:
        return


# The embedded apiserver and the local API


_KINDS: dict[str, Resource] = {"pods": PODS, "nodes": NODES, "devices": DEVICES}


def api_request(data: bytes) -> None:
    """Method, target and Accept of a request; a selector by itself."""
    texts = [part.decode("latin-1") for part in data.split(b"\n")] + [""] * 3
    with contextlib.suppress(ApiError):
        requests.parse(texts[0], texts[1], lambda *asked: _KINDS.get(asked[-1]), texts[2])
    for parser in (parse_labels, parse_fields):
        try:
            parser(texts[1])
        except (ApiError, ValueError):
            continue


def patch(data: bytes) -> None:
    """A patch of each kind."""
    kind, _, body = data.partition(b"\n")
    types = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")
    current = json.loads(BODY) | {"data": {"a": [1, {"b": "c"}]}}
    try:
        patches.apply(current, body, types[sum(kind) % 3], is_custom=False)
    except ApiError:
        return


def yaml_body(data: bytes) -> None:
    """A body in YAML."""
    try:
        yamlbodies.load(data)
    except ApiError:
        return


def protobuf_body(data: bytes) -> None:
    """A body in Kubernetes' protobuf."""
    try:
        json.dumps(protobuf.decode(data))
    except ApiError:
        return


# MQTT


def mqtt_packets(data: bytes) -> None:
    """What reaches the embedded broker, and what reaches the client of another broker."""
    decoder = Decoder(1 << 16)
    try:
        decoder.feed(data)
        while (packet := decoder.next()) is not None:
            encode(packet)
    except ProtocolError:
        pass
    client = MqttClient("c", (("a/#", 1),), 60.0)
    client.open(0.0)
    try:
        for event in client.receive(data):
            if isinstance(event, Publish) and event.packet_id:
                client.acknowledge(event.packet_id)
    except (ProtocolError, BrokerRefusal):
        return


def mqtt_payload(data: bytes) -> None:
    """What mappers say."""
    for kind in (TwinUpdate, StateUpdate, Ask, MapperState):
        try:
            kind.decode(data).encode()
        except MessageError:
            continue


def _requests() -> Iterator[bytes]:
    yield b"GET\n/api/v1/namespaces/default/pods?labelSelector=app%3Dweb,x+in+(a,b)&limit=5\napplication/json"
    yield b"GET\n/api/v1/pods?watch=1&resourceVersion=5&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3De\n*/*"
    yield b"PATCH\n/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/a/status\napplication/json;as=Table"
    yield b"POST\n/api/v1/namespaces/default/pods/web-1/eviction?dryRun=All&fieldManager=x\n"
    yield b"GET\n/api/v1/namespaces/default/pods/web-1/log?follow=false\n"


def _seeds_of_reports() -> Iterator[bytes]:
    yield b'{"value":"21","observedAt":"2026-01-01T00:00:00Z","type":"int"}'
    yield b'{"state":"online","lastOnlineTime":"2026-01-01T00:00:00Z","problem":""}'
    yield b'{"nodeInfo":{"machineID":"x"},"addresses":[{"type":"InternalIP","address":"::1"}],"capacity":{"cpu":"4"}}'
    yield (
        b'{"name":"thermo-1.1","namespace":"default","reason":"R","message":"m","type":"Warning","count":2,'
        b'"regarding":{"apiVersion":"v1","kind":"Pod","name":"web-1","namespace":"default","uid":"u"}}'
    )


_AUTHORITY = pki.create_ca("fuzzed", 1)
_, _CSR = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
_JOIN = json.dumps({"node": "edge-1", "token": "fl1.a.b.c", "csr": _CSR.decode()}).encode()
_SERVING = {"csr": _CSR.decode(), "addresses": ["192.0.2.7", "::1"]}
_ENTRY = b'{"actual":{"value":"21","metadata":{"timestamp":1}},"metadata":{"type":"int"}}'
_TWIN = b'{"event_id":"e","timestamp":1,"twin":{"t":' + _ENTRY + b"}}"
_PODLET = b'k8s\0\n\t\n\2v1\x12\3Pod\x12\x1a\n\x18\n\5web-1\x12\0\x1a\7default"\0*\0002\0008\0B\0\x1a\0"\0'
_JSON_WORDS = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"1e400", b"NaN", b"\\ud800", b"\xff", b"-0")

TARGETS: tuple[Target, ...] = (
    Target(
        "frame",
        frame,
        _ENCODED,
        (
            b"\xdc\x10\x00",
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\x7f\xff\xff\xff",
            b"\xc6\x7f\xff\xff\xff",
            b"\xc0",
            b"\x90",
            b"\xcf" + b"\xff" * 8,
        ),
    ),
    Target(
        "delta",
        delta,
        tuple(pushcodec.encode_delta(each) for pushed in FRAMES if isinstance(pushed, Push) for each in pushed.deltas),
        (b"\xdc\x10\x00", b"\xc0", b"\x90", b"\x01", b"\x02", b"\x03"),
    ),
    Target(
        "conversation",
        conversation,
        (bytes((1, 0, 131, 8, 15, 17, 19, 21, 23)), bytes((0, 2, 6, 7, 129, 27, 29)), bytes((1, 1, 139, 4, 5, 128, 8))),
    ),
    Target(
        "cutter",
        cutter,
        (
            *(b"\x00" + step + b"".join(map(framed, _ENCODED[:7])) for step in (b"\x05", b"\xff")),
            *(b"\x01" + step + b"".join(masked(each, b"abcd") for each in _ENCODED[:7]) for step in (b"\x09", b"\xff")),
            b"\x01\x07" + b"\x01\x81abcdz" + b"\x80\x82abcdzz" + b"\x89\x80abcd" + b"\x88\x80abcd",
        ),
        (b"\x82\x7e\xff\xff", b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", b"\x82\x7f" + b"\xff" * 8, b"\x88\x00"),
    ),
    Target(
        "lanes",
        lanes,
        tuple(
            bytes((lane, step)) + b"".join(framed_on_lane(each) for each in _ENCODED if tags.lane_of(each) is lane)
            for lane in LANES
            for step in (4, 255)
        ),
        (bytes(4), b"\x00\x40\x00\x00", b"\x00\x40\x00\x01", b"\xff\xff\xff\xff"),
    ),
    Target(
        "unpacking",
        unpacking,
        (
            len(BODY).to_bytes(2) + b"\x01" + pack(BODY, BODY),
            (40_000).to_bytes(2) + b"\x00" + pack(b"\0" * 40_000, BODY),
            len(BODY).to_bytes(2) + b"\x00" + pack_against(BODY, BODY * (1 + REACH // len(BODY))),
        ),
    ),
    Target(
        "join_body", join_body, (_JOIN, json.dumps(json.loads(_JOIN) | {"serving": _SERVING}).encode()), _JSON_WORDS
    ),
    Target("report_value", report_value, tuple(_seeds_of_reports()), _JSON_WORDS),
    Target(
        "call",
        call,
        (
            b"GET\n/api/v1/namespaces/default/pods/web-1/log?follow=false\napplication/json\n*/*",
            b"POST\n/apis/a/v1/x\n",
        ),
        (b"%2e%2e", b"..", b"//", b"%2f", b"\r", b"#", b"watch=1", b"/watch/", b"exec"),
    ),
    Target(
        "api_request",
        api_request,
        tuple(_requests()),
        (b"%", b"%00", b"..", b"&", b"=", b"!=", b" in (", b"notin", b",", b"watch=1"),
    ),
    Target(
        "patch",
        patch,
        (
            b'a\n[{"op":"add","path":"/data/a/0","value":1},{"op":"copy","from":"/data","path":"/data/x"}]',
            b'b\n{"data":{"a":null,"c":{"d":[1]}}}',
            b'c\n{"spec":{"containers":[{"name":"a","$patch":"delete"}],"$setElementOrder/containers":[{"name":"a"}]}}',
        ),
        (
            *_JSON_WORDS,
            b'"$patch"',
            b'"replace"',
            b'"$retainKeys"',
            b"~0",
            b"~1",
            b"/-",
            b'"move"',
            b'"test"',
            b'"remove"',
        ),
    ),
    Target(
        "yaml_body",
        yaml_body,
        (b"a: &x [1, 2]\nb: *x\nc: |\n  t\n", b"kind: Pod\nmetadata: {name: a}\n---\n"),
        (b"&x", b"*x", b"<<: ", b"!!python/object:x ", b"? ", b"- ", b"\t", b"2001-01-01"),
    ),
    Target("protobuf_body", protobuf_body, (_PODLET,), (b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x0d\x01\x02\x03\x04")),
    Target(
        "mqtt_packets",
        mqtt_packets,
        (
            bytes.fromhex("101e00044d51545404f4ffff000269640003772f31000300ff0100017500 0100".replace(" ", "")),
            encode(Connack(False, 0)) + encode(Suback(1, (1,))) + encode(Publish("a/b", b"x", 1, False, False, 5)),
            encode(Puback(1)) + bytes.fromhex("820c0007000123000003612f2b02c000e000"),
        ),
        (b"\x82", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00", b"\x30", b"\x3f"),
    ),
    Target(
        "mqtt_payload",
        mqtt_payload,
        (_TWIN, b'{"event_id":"","timestamp":1,"state":"online","devices":["default/a"]}'),
        _JSON_WORDS,
    ),
    Target("mqtt_session", sessions.mqtt_session, sessions.MQTT_SEEDS, (b"\x80\x00", b"\x81\x01", b"\xc4", b"\xc1")),
    Target("http_session", sessions.http_session, sessions.HTTP_SEEDS, sessions.HTTP_WORDS),
)
