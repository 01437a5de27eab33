"""The CA in its Secret, and what is signed with it, over real TLS sockets on loopback."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apimachinery.errors import InternalError, Invalid, Unavailable
from apimachinery.keys import Node
from apimachinery.resources import SECRETS
from cloudhub import authority, cas
from cloudhub.authority import Authority, server_names
from cloudhub.cas import SECRET_NAME, Ca
from cloudhub.vault import NAMESPACE, Vault
from componentbase import pki
from componentbase.certificates import fingerprints
from tests.harness.objects import MemoryObjects

EDGE = Node("edge-1")


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
async def made(objects: MemoryObjects) -> Authority:
    return await Authority.load(Vault(objects))


async def test_the_ca_is_made_once_and_shared(made: Authority, objects: MemoryObjects) -> None:
    again = await Authority.load(Vault(objects))
    assert again.certificate_pem == made.certificate_pem
    assert again.pin == made.pin == pki.fingerprint(made.certificate_pem)
    secret = objects.kept[SECRETS, NAMESPACE, SECRET_NAME]
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key"}


async def test_replicas_that_start_at_once_agree_on_one_ca() -> None:
    objects = MemoryObjects()
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(Authority.load(Vault(objects)), name=f"replica[{n}]") for n in range(4)]
    assert len({start.result().pin for start in starts}) == 1


@pytest.mark.parametrize("field", ["tls.crt", "tls.key"])
async def test_a_damaged_ca_is_an_error_that_says_what_to_do(
    made: Authority, objects: MemoryObjects, field: str
) -> None:
    data = objects.kept[SECRETS, NAMESPACE, SECRET_NAME]["data"]
    other = MemoryObjects()
    await Authority.load(Vault(other))
    for content in ("", "bm90IFBFTQ==", other.kept[SECRETS, NAMESPACE, SECRET_NAME]["data"][field]):
        data[field] = content
        with pytest.raises(InternalError, match=r"fairlead-system/fairlead-ca.*restore it"):
            await Authority.load(Vault(objects))


async def test_a_node_certificate_names_the_node(made: Authority) -> None:
    _, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    assert pki.common_name(made.sign_node(csr, EDGE)) == "system:node:edge-1"


async def test_a_request_for_another_name_is_not_signed(made: Authority) -> None:
    _, csr = pki.make_key_and_csr("system:node:edge-2", "system:nodes")
    with pytest.raises(Invalid, match="common name is 'system:node:edge-2'"):
        made.sign_node(csr, EDGE)
    with pytest.raises(Invalid, match="not a certificate signing request"):
        made.sign_node(b"rubbish", EDGE)


async def exchange(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "127.0.0.1") -> str:
    """What a client reads from a server that greets it by the name in its certificate."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert") or {}
        names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
        writer.write("".join(names).encode() or b"nobody")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server) as listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        try:
            return (await reader.read(100)).decode()
        finally:
            writer.close()


async def is_refused(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """asyncio may close the socket before the alert that says why has left it: then it is a reset, or just the end."""
    try:
        return await exchange(server, client) == ""
    except (ssl.SSLError, ConnectionResetError):
        return True


def client_context(made: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=made.certificate_pem.decode())
    return context


def with_certificate(context: ssl.SSLContext, folder: Path, certificate: bytes, key: bytes) -> ssl.SSLContext:
    path = folder / "both.pem"
    path.write_bytes(certificate + key)
    context.load_cert_chain(path)
    return context


async def test_a_node_serves_its_own_api_and_is_told_from_a_hub(made: Authority, tmp_path: Path) -> None:
    key, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    certificate = made.sign_serving(csr, Node("edge-1"), ["192.0.2.7"])
    assert pki.common_name(certificate) == "system:node:edge-1"
    server = with_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tmp_path, certificate, key)
    for name in ("localhost", "192.0.2.7", "kubernetes.default.svc"):
        assert await exchange(server, client_context(made), name) == "nobody"
    with pytest.raises(ssl.SSLCertVerificationError):
        await exchange(server, client_context(made), "hub.example")
    with pytest.raises(Invalid, match="edge-1"):
        made.sign_serving(csr, Node("edge-2"), [])


async def test_the_link_lets_a_node_in_and_knows_its_name(made: Authority, tmp_path: Path) -> None:
    key, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    client = with_certificate(client_context(made), tmp_path, made.sign_node(csr, EDGE), key)
    assert await exchange(made.server(["127.0.0.1"]).link_context, client) == "system:node:edge-1"


async def test_the_link_refuses_whoever_has_no_certificate(made: Authority) -> None:
    assert await is_refused(made.server(["127.0.0.1"]).link_context, client_context(made))


async def test_the_link_refuses_certificates_of_another_ca_and_of_another_use(made: Authority, tmp_path: Path) -> None:
    stranger = await Authority.load(Vault(MemoryObjects()))
    key, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    forged = with_certificate(client_context(made), tmp_path, stranger.sign_node(csr, EDGE), key)
    assert await is_refused(made.server(["127.0.0.1"]).link_context, forged)
    ca = pki.create_ca("fairlead", 1)
    pair = pki.issue_server_cert(ca, ["system:node:edge-1"], 1)
    misused = with_certificate(client_context(Authority(Ca.of(ca))), tmp_path, pair.cert_pem, pair.key_pem)
    assert await is_refused(Authority(Ca.of(ca)).server(["127.0.0.1"]).link_context, misused)


async def test_what_the_dropped_ca_signed_opens_nothing_by_the_cross_signature_that_hubs_showed(tmp_path: Path) -> None:
    """The chain that makes edges of the second CA believe hubs of the first makes nodes of the first no nodes."""
    first, second = pki.create_ca("first", 1), pki.create_ca("second", 1, 1)
    cross = pki.cross_sign(second, first.cert_pem, 1)
    key, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    node = pki.sign_client_csr(first, csr, "system:node:edge-1", "system:nodes", 1)
    only_second = Authority(Ca.of(second))
    hub, shown = only_second.server(["127.0.0.1"]), pki.issue_server_cert(first, ["127.0.0.1"], 1)

    def client() -> ssl.SSLContext:
        return with_certificate(client_context(only_second), tmp_path, node + cross, key)

    assert await is_refused(hub.link_context, client())
    assert await is_refused(hub.join_context, client()), "it does not look at the clock, and at the use all the same"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    believed = with_certificate(server, tmp_path, shown.cert_pem + cross, shown.key_pem)
    assert await exchange(believed, client_context(only_second)) == "nobody", "as long as it lasts"
    lapsed = pki.cross_sign(second, first.cert_pem, -1)
    for certificate, chain, secret in (
        (node, cross, key),
        (shown.cert_pem, lapsed, shown.key_pem),
        (shown.cert_pem, b"", shown.key_pem),
    ):
        posing = with_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tmp_path, certificate + chain, secret)
        with pytest.raises(ssl.SSLCertVerificationError):
            await exchange(posing, client_context(only_second))


async def test_another_ca_may_vouch_for_nodes_and_for_no_hub(objects: MemoryObjects, tmp_path: Path) -> None:
    cluster, later = pki.create_ca("cluster", 1), pki.create_ca("later", 1)
    vouching = [cluster.cert_pem]

    async def others() -> bytes:
        return vouching[-1]

    made = await Authority.load(Vault(objects), others=others)
    identity = made.server(["127.0.0.1"])
    key, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")

    def client(ca: pki.KeyPair) -> ssl.SSLContext:
        certificate = pki.sign_as_requested(ca, csr, ["client auth"], 1)
        return with_certificate(client_context(made), tmp_path, certificate, key)

    assert await exchange(identity.link_context, client(cluster)) == "system:node:edge-1"
    assert made.certificate_pem != made.clients_pem, "nodes trust our own CA only"
    assert await is_refused(identity.link_context, client(later))
    assert not await made.reload(Vault(objects))
    vouching.append(cluster.cert_pem + later.cert_pem)
    assert await made.reload(Vault(objects)), "it is looked at as often as our own"
    identity.renew()
    assert await exchange(identity.link_context, client(later)) == "system:node:edge-1"


async def test_while_others_cas_cannot_be_read_ours_are_looked_after(
    objects: MemoryObjects, caplog: pytest.LogCaptureFixture
) -> None:
    cluster, fails = pki.create_ca("cluster", 1), [False]

    async def others() -> bytes:
        if fails[-1]:
            raise FileNotFoundError(2, "No such file", "ca.crt")
        return cluster.cert_pem

    made = await Authority.load(Vault(objects), others=others)
    fails.append(True)
    await cas.begin(Vault(objects), datetime.now(UTC))
    assert await made.reload(Vault(objects))
    assert len(fingerprints(made.certificate_pem)) == 2
    assert made.clients_pem.endswith(cluster.cert_pem)
    assert "the CAs of the cluster's clients cannot be read" in caplog.text


async def test_joining_takes_no_certificate(made: Authority) -> None:
    assert await exchange(made.server(["127.0.0.1"]).join_context, client_context(made)) == "nobody"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "hub.example.org"])
async def test_the_server_is_valid_under_each_of_its_names(made: Authority, host: str) -> None:
    identity = made.server(server_names(["127.0.0.1"], ["hub.example.org"]))
    assert await exchange(identity.join_context, client_context(made), host) == "nobody"
    with pytest.raises(ssl.SSLCertVerificationError):
        await exchange(identity.join_context, client_context(made), "other.example.org")


async def test_tls_1_2_is_refused(made: Authority) -> None:
    client = client_context(made)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await is_refused(made.server(["127.0.0.1"]).join_context, client)


async def test_renewing_changes_the_certificate_of_running_servers(made: Authority) -> None:
    identity = made.server(["127.0.0.1"])
    seen = []

    async def look() -> None:
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=identity.join_context) as one:
            port = one.sockets[0].getsockname()[1]
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(made))
                seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                writer.close()
                identity.renew()

    await look()
    assert len(set(seen)) == 2


def test_names_cover_loopback_the_machine_and_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    names = server_names(["10.1.2.3"], ["hub.example.org", "192.0.2.7"])
    assert names[:3] == ["hub.example.org", "192.0.2.7", "10.1.2.3"]
    assert {socket.gethostname(), "localhost", "127.0.0.1", "::1"} <= set(names)
    assert len(names) == len(set(names))
    monkeypatch.setattr(authority, "_outgoing_addresses", lambda: ["198.51.100.9", "fe80::1%eth0"])
    for everywhere in ("", "0.0.0.0", "::"):
        names = server_names([everywhere, "127.0.0.1"], [])
        assert "198.51.100.9" in names
        assert everywhere not in names
        assert "fe80::1%eth0" not in names


async def test_where_the_first_ca_has_expired_the_second_signs_and_is_shown() -> None:
    past, future = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
    first, second = Ca.of(pki.create_ca("first", 9)), Ca.of(pki.create_ca("second", 9, 1), "fairlead-ca-2", future)
    assert Authority(first, second).signer_pin == first.pin, "its time has not come"
    made = Authority(first._replace(expires=past), second)
    assert made.signer_pin == second.pin
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=second.pair.cert_pem.decode())
    assert await exchange(made.server(["127.0.0.1"]).join_context, context) == "nobody"


async def test_a_hub_follows_the_cas_and_goes_on_with_what_it_has_when_it_cannot_look(
    made: Authority, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    identity, asked, vault = made.server(["127.0.0.1"]), asyncio.Event(), Vault(objects)
    first = client_context(made)

    async def away(*_: object) -> None:
        raise Unavailable("no answer")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(identity.keep_fresh(vault, 0.02, asked), name="keeping")
        with monkeypatch.context() as patched:
            patched.setattr(objects, "list_all", away)
            asked.set()
            while "certificates not looked after" not in caplog.text:
                await asyncio.sleep(0.01)
        assert await exchange(identity.join_context, first) == "nobody"
        second = await cas.begin(vault, datetime.now(UTC))
        while made.pin != second.pin:
            await asyncio.sleep(0.01)
        await cas.drop_first(vault, await cas.load(vault))
        while len(fingerprints(made.certificate_pem)) > 1:
            await asyncio.sleep(0.01)
        keeping.cancel()
    with pytest.raises(ssl.SSLCertVerificationError):
        identity.renew()
        await exchange(identity.join_context, first)
    assert await exchange(identity.join_context, client_context(made)) == "nobody"
