"""The edge's side of joining, against a real endpoint: what it leaves on disk, and what it says when it fails."""

import asyncio
import datetime
import math
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from apimachinery.keys import Node
from apiserver.http import Request, Response, json_response, serve
from cloudhub.authority import Authority, server_names
from cloudhub.join import EACH, GUESS_EACH
from cloudhub.vault import Vault
from componentbase import pki
from componentbase.endpoints import Endpoint
from componentbase.files import FilesError, Locked, lock_dir, write_atomic
from edgehub.join import STAGED, Joined, join
from edgehub.joinhub import (
    AlreadyJoined,
    Answer,
    BadToken,
    Busy,
    Hub,
    JoinError,
    NotInTime,
    NotReachable,
    NotTrusted,
    Pending,
    Refused,
    Unanswered,
)
from tests.harness.joining import LINK_PORT, JoinableHub, joinable_hub
from tests.harness.objects import MemoryObjects

EDGE = Node("edge-1")


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "edge"


def configuration(joined: Joined) -> str:
    return f"node: {joined.node}\ncloud: {joined.link}\npath: {joined.link_path}\n"


async def run(
    cloud: Endpoint, token: str, home: Path, node: Node = EDGE, *, replace: bool = False, timeout_s: float = 10.0
) -> Joined:
    return await asyncio.to_thread(join, cloud, token, node, home, configuration, replace=replace, timeout_s=timeout_s)


def contents(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


async def test_joining_leaves_an_identity_and_a_configuration(hub: JoinableHub, home: Path) -> None:
    joined = await run(hub.endpoint, await hub.token(), home)
    assert joined == Joined(EDGE, Endpoint("127.0.0.1", LINK_PORT), "/v1/link", home)
    files = {"ca.crt", "edge.crt", "edge.key", "api.crt", "api.key"}
    assert set(contents(home)) == {"edgecore.yaml", *(f"pki/{name}" for name in files)}
    assert (home / "edgecore.yaml").read_text() == f"node: edge-1\ncloud: 127.0.0.1:{LINK_PORT}\npath: /v1/link\n"
    assert (home / "pki/ca.crt").read_bytes() == hub.authority.certificate_pem
    assert pki.common_name((home / "pki/edge.crt").read_bytes()) == "system:node:edge-1"


async def test_a_node_that_poses_as_the_hub_does_not_get_the_token(hub: JoinableHub, home: Path) -> None:
    """A node's serving certificate is of the same CA, and may be for any address."""
    asked: list[str] = []

    async def pose(request: Request) -> Response:
        asked.append(request.path)
        return Response(200, [], hub.authority.certificate_pem)

    key, csr = pki.make_key_and_csr("system:node:evil", "system:nodes")
    pair = home.parent / "evil.pem"
    pair.write_bytes(hub.authority.sign_serving(csr, Node("evil"), ["127.0.0.1"]) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    async with serve(pose, host="127.0.0.1", port=0, ssl_context=context) as server:
        with pytest.raises(NotTrusted, match="is a node and not cloudcore"):
            await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)
    assert asked == ["/v1/ca"]
    assert not home.exists()


async def test_the_key_is_for_this_user_only(hub: JoinableHub, home: Path) -> None:
    before = os.umask(0)
    try:
        await run(hub.endpoint, await hub.token(), home)
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "pki/edge.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "pki").stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


async def test_the_token_is_nowhere_on_disk(hub: JoinableHub, home: Path) -> None:
    token = await hub.token()
    await run(hub.endpoint, token, home)
    assert not any(token.split(".")[2].encode() in content for content in contents(home).values())


async def test_the_certificate_opens_the_link(hub: JoinableHub, home: Path) -> None:
    import ssl

    await run(hub.endpoint, await hub.token(), home)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(home / "pki/ca.crt")
    client.load_cert_chain(home / "pki/edge.crt", home / "pki/edge.key")
    link = hub.authority.server(["127.0.0.1"]).link_context

    async def who(request: Request) -> Response:
        return json_response(200, request.peer_certificate_cn)

    async with serve(who, host="127.0.0.1", port=0, ssl_context=link) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b'"system:node:edge-1"' in await reader.read()
        writer.close()


@pytest.mark.parametrize("token", ["", "hello", "fl1.cut.off", "fl1.aaaaaaaa." + "s" * 43 + "." + "AB" * 32])
async def test_a_malformed_token_is_said_before_anything_is_touched(home: Path, token: str) -> None:
    with pytest.raises(BadToken, match="as `cloudcore token create` prints it"):
        await run(Endpoint("127.0.0.1", 1), token, home)
    assert not home.exists()


async def test_another_ca_is_found_out_and_never_sees_the_token(
    hub: JoinableHub, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = await hub.token()
    async with joinable_hub() as impostor:
        with pytest.raises(
            NotTrusted, match=f"authority at {impostor.endpoint} is not the one this token was made for"
        ):
            await run(impostor.endpoint, token, home)
    assert not home.exists()
    assert "join refused" not in caplog.text


async def test_a_server_that_only_shows_the_right_ca_does_not_get_the_token(hub: JoinableHub, home: Path) -> None:
    """The CA's certificate is public. Whoever shows it must also have a certificate of it."""
    seen: list[Request] = []

    async def parrot(request: Request) -> Response:
        seen.append(request)
        return Response(200, [], hub.authority.certificate_pem)

    impostor = (await Authority.load(Vault(MemoryObjects()))).server(["127.0.0.1"])
    async with serve(parrot, host="127.0.0.1", port=0, ssl_context=impostor.join_context) as server:
        with pytest.raises(NotTrusted, match="not to be trusted"):
            await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)
    assert [request.method for request in seen] == ["GET"]
    assert not home.exists()


async def test_what_the_hub_refuses_is_told_in_its_words(hub: JoinableHub, home: Path) -> None:
    token = await hub.token("edge-2", ttl=datetime.timedelta(hours=1))
    with pytest.raises(Refused, match=f"{hub.endpoint} refused: the token was made for another node than edge-1"):
        await run(hub.endpoint, token, home)
    with pytest.raises(JoinError, match='"Edge_2" cannot be a node name'):
        await run(hub.endpoint, token, home, Node("Edge_2"))
    hub.now += datetime.timedelta(hours=2)
    with pytest.raises(Refused, match="expired at"):
        await run(hub.endpoint, token, home, Node("edge-2"))
    await hub.tokens.delete(token)
    with pytest.raises(Refused, match="not known"):
        await run(hub.endpoint, token, home, Node("edge-2"))
    assert not home.exists()


@pytest.mark.parametrize("node", ["", "x" * 53])
async def test_a_name_without_room_in_a_certificate_is_said_at_once(hub: JoinableHub, home: Path, node: str) -> None:
    with pytest.raises(JoinError, match="1 to 52 characters"):
        await run(hub.endpoint, await hub.token(), home, Node(node))
    assert not home.exists()


async def test_a_directory_that_has_joined_is_left_alone_unless_told(hub: JoinableHub, home: Path) -> None:
    token = await hub.token(may_replace=True)
    await run(hub.endpoint, token, home)
    before = contents(home)
    with pytest.raises(AlreadyJoined, match="give --force"):
        await run(hub.endpoint, token, home)
    assert contents(home) == before
    await run(hub.endpoint, token, home, replace=True)
    after = contents(home)
    assert set(after) == set(before)
    assert after["pki/edge.key"] != before["pki/edge.key"]


async def test_a_failed_replacement_leaves_the_old_identity(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(hub.endpoint, await hub.token(), home)
    before = contents(home)
    with pytest.raises(Refused):
        await run(hub.endpoint, await hub.token("other"), home, replace=True)
    assert contents(home) == before

    from edgehub import join as module

    def failing(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name == "edgecore.yaml":
            raise FilesError("the disk is full")
        write_atomic(path, data, mode)

    token = await hub.token(may_replace=True, is_single_use=True)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomic", failing)
        with pytest.raises(FilesError):
            await run(hub.endpoint, token, home, replace=True)
    kept = {name: content for name, content in contents(home).items() if not name.startswith(STAGED)}
    assert kept == before
    # The hub has signed for the key, which is kept: with room on the disk the same token does, though it is used up.
    key = (home / STAGED / "pki/edge.key").read_bytes()
    await run(hub.endpoint, token, home, replace=True)
    assert (home / "pki/edge.key").read_bytes() == key
    assert not (home / STAGED).exists()


async def test_data_of_one_node_does_not_become_anothers(hub: JoinableHub, home: Path) -> None:
    token = await hub.token(may_replace=True)
    await run(hub.endpoint, token, home)
    (home / "edge.db").write_bytes(b"reports")
    with pytest.raises(AlreadyJoined, match="holds the data of node edge-1"):
        await run(hub.endpoint, token, home, Node("edge-2"), replace=True)
    await run(hub.endpoint, token, home, replace=True)


async def test_a_directory_in_use_is_refused(hub: JoinableHub, home: Path) -> None:
    home.mkdir(mode=0o700)
    with lock_dir(home), pytest.raises(Locked):
        await run(hub.endpoint, await hub.token(), home)


async def test_a_failing_configuration_leaves_the_key_that_was_signed_and_nothing_else(
    hub: JoinableHub, home: Path
) -> None:
    def broken(_: Joined) -> str:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await asyncio.to_thread(join, hub.endpoint, await hub.token(), EDGE, home, broken)
    assert {path.name for path in home.iterdir()} == {"lock", STAGED}


async def test_an_existing_directory_is_kept_when_joining_fails(hub: JoinableHub, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "note").write_text("mine")
    with pytest.raises(Refused):
        await run(hub.endpoint, await hub.token("other"), home)
    assert contents(home) == {"note": b"mine"}


async def test_a_file_in_the_way_is_said(hub: JoinableHub, home: Path) -> None:
    home.write_text("mine")
    with pytest.raises(FilesError, match="is not a directory"):
        await run(hub.endpoint, await hub.token(), home)
    assert home.read_text() == "mine"


async def test_a_host_the_certificate_does_not_name_is_said_with_the_remedy(home: Path) -> None:
    async with joinable_hub(["hub.example.org"]) as hub:
        with pytest.raises(NotTrusted, match=r'reached as "127\.0\.0\.1": start it with --advertise 127\.0\.0\.1'):
            await run(hub.endpoint, await hub.token(), home)
        with pytest.raises(NotTrusted, match=r'reached as "localhost": start it with --advertise localhost'):
            await run(Endpoint("localhost", hub.endpoint.port), await hub.token(), home)
    assert not home.exists()


@pytest.mark.parametrize(("days", "said"), [(30, "not valid yet: this machine's clock says"), (-700, "has expired")])
async def test_a_wrong_clock_is_called_by_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, days: int, said: str
) -> None:
    there = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=days)
    monkeypatch.setattr(pki, "_now", lambda: there)
    async with joinable_hub() as hub:
        monkeypatch.undo()
        with pytest.raises(NotTrusted, match=said):
            await run(hub.endpoint, await hub.token(), home)
    assert not home.exists()


async def test_nobody_listening_is_said(hub: JoinableHub, home: Path, free_port: int) -> None:
    with pytest.raises(NotReachable, match=f"nothing listens at 127.0.0.1:{free_port}"):
        await run(Endpoint("127.0.0.1", free_port), await hub.token(), home)
    assert not home.exists()


async def test_a_name_that_does_not_resolve_is_said(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    token = await hub.token()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NotReachable, match=r'"hub\.invalid" cannot be resolved \(Name or service not known\)'):
        await run(Endpoint("hub.invalid", 10002), token, home)


@pytest.fixture
def answering() -> Iterator[Callable[[bytes | None], Endpoint]]:
    """Plain TCP servers that send the given bytes at once, or nothing at all, and hang up when the test ends."""
    listeners, done = [], threading.Event()

    def start(greeting: bytes | None) -> Endpoint:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve_one() -> None:
            peer, _ = listener.accept()
            with peer:
                if greeting is None:
                    done.wait(10)
                else:
                    peer.recv(16)
                    peer.sendall(greeting)

        thread = threading.Thread(target=serve_one, daemon=True)
        thread.start()
        threads.append(thread)
        return Endpoint("127.0.0.1", listener.getsockname()[1])

    threads: list[threading.Thread] = []
    yield start
    done.set()
    for thread in threads:
        thread.join(10)
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak TLS"),
        (b"", "closed the connection"),
        (None, "did not answer within 0.3 s"),
    ],
)
async def test_something_else_at_the_port_is_said(
    hub: JoinableHub, home: Path, answering: Callable[[bytes | None], Endpoint], greeting: bytes | None, said: str
) -> None:
    with pytest.raises(NotReachable, match=said):
        await run(answering(greeting), await hub.token(), home, timeout_s=0.3)
    assert not home.exists()


async def test_the_link_instead_of_the_join_port_is_said(hub: JoinableHub, home: Path) -> None:
    link = hub.authority.server(server_names(["127.0.0.1"], [])).link_context

    async def never(request: Request) -> Response:
        raise AssertionError("nobody without a certificate gets here")

    async with serve(never, host="127.0.0.1", port=0, ssl_context=link) as server:
        with pytest.raises(NotReachable, match=r"it is the link|closed the connection"):
            await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)
    assert not home.exists()


async def test_a_hub_that_says_to_come_back_later_is_asked_again_then(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = await hub.token()
    wrong = token.replace(token.split(".")[2], "A" * 43)
    for _ in range(int(EACH.burst / (1 + GUESS_EACH)) + 1):
        with pytest.raises(Refused, match="not known"):
            await run(hub.endpoint, wrong, home)
    with pytest.raises(Busy, match="too many requests to join"):
        await asyncio.to_thread(join, hub.endpoint, token, EDGE, home, configuration, patience_s=0.0)
    key = (home / STAGED / "pki/edge.key").read_bytes()
    waits: list[float] = []

    def slept(wait_s: float) -> None:
        waits.append(wait_s)
        hub.monotonic_s += wait_s

    monkeypatch.setattr("edgehub.join.time.sleep", slept)
    await run(hub.endpoint, token, home)
    owed = (int(EACH.burst / (1 + GUESS_EACH)) + 1) * (1 + GUESS_EACH) - EACH.burst + 1
    assert waits == [math.ceil(owed / EACH.per_s)]
    assert "the hub says to come back later" in caplog.text
    assert (home / "pki/edge.key").read_bytes() == key


async def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await hub.token(is_single_use=True)
    ask, lost = Hub.join, 0

    def lose_two(self: Hub, ca_pem: str, asked: Mapping[str, object]) -> Answer:
        nonlocal lost
        answer = ask(self, ca_pem, asked)
        lost += 1
        if lost == 1:
            raise Unanswered("it hung up")
        if lost == 2:
            raise NotReachable("nothing listens there")
        return answer

    monkeypatch.setattr("edgehub.join.time.sleep", lambda _: None)
    with monkeypatch.context() as patched:
        patched.setattr(Hub, "join", lose_two)
        await run(hub.endpoint, token, home)
        assert lost == 3
        lost = -5
        patched.setattr(Hub, "join", always_lost)
        with pytest.raises(Unanswered, match="Run the same command again: the key that was sent is kept"):
            await run(hub.endpoint, await hub.token(is_single_use=True), home.parent / "other", Node("edge-2"))
    assert (home.parent / "other" / STAGED / "pki/edge.key").exists()


OUTAGE = NotReachable("nothing listens there"), NotReachable("cannot be resolved"), NotInTime("has expired")


@pytest.mark.parametrize(
    "seen", [Pending("somebody decides", 202, 2.0), Busy("later", 503, 2.0), Unanswered("it hung up")], ids=type
)
async def test_a_hub_that_goes_away_after_it_was_asked_is_waited_for_with_the_same_key(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch, seen: JoinError
) -> None:
    token, ask, keys = await hub.token(is_single_use=True), Hub.join, set[bytes]()
    troubles: list[JoinError] = [seen, *OUTAGE]

    def troubled(self: Hub, ca_pem: str, asked: Mapping[str, object]) -> Answer:
        answer = ask(self, ca_pem, asked)
        keys.add((home / STAGED / "pki/edge.key").read_bytes())
        if troubles:
            raise troubles.pop(0)
        return answer

    monkeypatch.setattr("edgehub.join.time.sleep", lambda _: None)
    monkeypatch.setattr(Hub, "join", troubled)
    await run(hub.endpoint, token, home)
    assert keys == {(home / "pki/edge.key").read_bytes()}


@pytest.mark.parametrize("last", [NotTrusted("another CA"), Refused("no", 403), *OUTAGE], ids=str)
async def test_a_key_that_a_hub_was_asked_for_outlasts_whatever_comes(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch, last: JoinError
) -> None:
    troubles: list[JoinError] = [Busy("later", 503, 0.0)]

    def troubled(self: Hub, ca_pem: str, asked: Mapping[str, object]) -> Answer:
        raise troubles.pop() if troubles else last

    monkeypatch.setattr("edgehub.join.time.sleep", lambda _: None)
    monkeypatch.setattr(Hub, "join", troubled)
    with pytest.raises(JoinError):
        await asyncio.to_thread(join, hub.endpoint, await hub.token(), EDGE, home, configuration, patience_s=0.05)
    assert (home / STAGED / "pki/edge.key").exists()


def always_lost(self: Hub, ca_pem: str, asked: Mapping[str, object]) -> Answer:
    raise Unanswered("it hung up")


CRASHING = """
import os, sys
from pathlib import Path
from edgehub import join as module
from componentbase.endpoints import Endpoint

step, port, home = sys.argv[1:]
rename, unlink, write_atomic = Path.rename, Path.unlink, module.write_atomic

def die():
    os.kill(os.getpid(), 9)

def renaming(self, target):
    if step == "moving" and self.name == "pki" and self.parent.name == ".joining":
        die()
    return rename(self, target)

def unlinking(self, *rest):
    if step == "ending":
        die()
    return unlink(self, *rest)

def writing(path, *rest):
    if step == "configuring" and path == Path(home, "edgecore.yaml"):
        die()
    return write_atomic(path, *rest)

Path.rename, Path.unlink, module.write_atomic = renaming, unlinking, writing
cloud = Endpoint("127.0.0.1", int(port))
module.join(cloud, sys.stdin.read(), "edge-1", Path(home), lambda joined: "new", replace=True)
"""


@pytest.mark.parametrize("step", ["moving", "configuring", "ending"])
async def test_a_crash_while_an_identity_is_replaced_is_made_good_by_the_next_join(
    hub: JoinableHub, home: Path, step: str
) -> None:
    await run(hub.endpoint, await hub.token(), home)
    former = (home / "pki/edge.key").read_bytes()
    token = await hub.token(may_replace=True, is_single_use=True)
    command = [sys.executable, "-c", CRASHING, step, str(hub.endpoint.port), str(home)]
    crashed = await asyncio.to_thread(subprocess.run, command, input=token, text=True, capture_output=True, check=False)
    assert crashed.returncode == -9, crashed.stderr
    kept, target = home / STAGED / "pki/edge.key", home / "pki/edge.key"
    asked = (kept if kept.exists() else target).read_bytes()
    assert asked != former
    with pytest.raises(AlreadyJoined):  # all new or all old, also for whoever does not give --force
        await run(hub.endpoint, token, home)
    if step == "ending":
        assert (home / "edgecore.yaml").read_text() == "new"
    else:
        assert target.read_bytes() == former
        await run(hub.endpoint, token, home, replace=True)
    assert target.read_bytes() == asked
    assert not (home / STAGED).exists()


async def test_who_joins_anew_leaves_what_others_keep_beside_the_identity(hub: JoinableHub, home: Path) -> None:
    await run(hub.endpoint, await hub.token(), home)
    theirs = {"pki/broker.key": b"a broker's", "pki/old/edge.key": b"a copy"}
    for name, content in theirs.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(content)
    former = contents(home)
    token = await hub.token(may_replace=True, is_single_use=True)
    command = [sys.executable, "-c", CRASHING, "ending", str(hub.endpoint.port), str(home)]
    crashed = await asyncio.to_thread(subprocess.run, command, input=token, text=True, capture_output=True, check=False)
    assert crashed.returncode == -9, crashed.stderr
    await run(hub.endpoint, await hub.token(may_replace=True), home, replace=True)
    now = contents(home)
    assert now.keys() == former.keys()
    assert {name: now[name] for name in theirs} == theirs
    assert now["pki/edge.key"] != former["pki/edge.key"]


def answers(hub: JoinableHub) -> list[object]:
    """What a join endpoint that is broken or hostile may say, with the right certificate and CA."""
    ca = hub.authority.certificate_pem.decode()
    good = {"certificate": ca, "ca": ca, "link": {"port": 1, "path": "/"}}
    return [
        None,
        [],
        {},
        "text",
        b"\xff",
        b"{" * 5000,
        b" " * 100_000,
        good,  # a certificate for another key than ours
        good | {"certificate": 1},
        good | {"certificate": "ä"},
        good | {"link": {"port": 0, "path": "/"}},
        good | {"link": {"port": 65536, "path": "/"}},
        good | {"link": {"port": True, "path": "/"}},
        good | {"link": {"port": 1, "path": "x\n"}},
    ]


async def test_nonsense_from_the_hub_is_no_identity(hub: JoinableHub, home: Path) -> None:
    replies = iter(answers(hub))

    async def odd(request: Request) -> Response:
        if request.method == "GET":
            return Response(200, [], hub.authority.certificate_pem)
        reply = next(replies)
        return Response(200, [], reply) if isinstance(reply, bytes) else json_response(200, reply)

    context = hub.authority.server(["127.0.0.1"]).join_context
    async with serve(odd, host="127.0.0.1", port=0, ssl_context=context) as server:
        for _ in answers(hub):
            with pytest.raises(NotReachable, match="does not answer as cloudcore's join endpoint does"):
                await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)
            assert not home.exists()


@pytest.mark.parametrize("reply", [b"", b"not pem", b"x" * 100_000, b"\xff" * 10])
async def test_nonsense_instead_of_a_ca_is_said(hub: JoinableHub, home: Path, reply: bytes) -> None:
    async def odd(request: Request) -> Response:
        return Response(200, [], reply)

    context = hub.authority.server(["127.0.0.1"]).join_context
    async with serve(odd, host="127.0.0.1", port=0, ssl_context=context) as server:
        with pytest.raises(NotReachable, match="does not answer"):
            await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)


async def test_a_refusal_with_escapes_does_not_reach_the_terminal(hub: JoinableHub, home: Path) -> None:
    async def rude(request: Request) -> Response:
        if request.method == "GET":
            return Response(200, [], hub.authority.certificate_pem)
        return json_response(403, {"message": "\x1b[2Jgone"})

    context = hub.authority.server(["127.0.0.1"]).join_context
    async with serve(rude, host="127.0.0.1", port=0, ssl_context=context) as server:
        with pytest.raises(Refused, match=r"it answered 403$"):
            await run(Endpoint("127.0.0.1", server.port), await hub.token(), home)
