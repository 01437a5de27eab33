"""Server contexts over real sockets on loopback: replaced while they listen, and what they never speak."""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from componentbase import pki
from componentbase.tls import (
    READ_BYTES,
    LiveContext,
    TlsMin,
    admit_lapsed,
    client_context,
    read_little_at_a_time,
    server_context,
)

FIRST, SECOND = pki.create_ca("first", 1), pki.create_ca("second", 1)


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def show(live: LiveContext, ca: pki.KeyPair, folder: Path) -> None:
    made = pki.issue_server_cert(ca, ["127.0.0.1"], 1)
    live.replace(written(folder / "server", made.cert_pem + made.key_pem), ca.cert_pem.decode())


def client(ca: pki.KeyPair, folder: Path, *, days: float = 1.0, own: pki.KeyPair | None = None) -> ssl.SSLContext:
    """Trusts ca, and shows a certificate of `own`."""
    context = client_context()
    context.load_verify_locations(cadata=ca.cert_pem.decode())
    if own is not None:
        key, csr = pki.make_key_and_csr("edge", "nodes")
        certificate = pki.sign_client_csr(own, csr, "edge", "nodes", days)
        context.load_cert_chain(written(folder / "client", certificate + key))
    return context


async def greeted(live: LiveContext, context: ssl.SSLContext) -> str:
    """Whom the server sees, or "refused"."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"edge" if writer.get_extra_info("peercert") else b"nobody")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=live.context) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            try:
                return (await reader.read(100)).decode() or "refused"
            finally:
                writer.close()
        except (ssl.SSLError, ConnectionResetError):
            return "refused"


async def test_certificate_and_trust_are_replaced_while_it_listens(tmp_path: Path) -> None:
    live = LiveContext(server_context(), ssl.CERT_OPTIONAL)
    assert await greeted(live, client(FIRST, tmp_path)) == "refused", "nothing is shown yet"
    show(live, FIRST, tmp_path)
    assert await greeted(live, client(FIRST, tmp_path)) == "nobody"
    assert await greeted(live, client(FIRST, tmp_path, own=FIRST)) == "edge"
    assert await greeted(live, client(FIRST, tmp_path, own=SECOND)) == "refused"
    show(live, SECOND, tmp_path)
    assert await greeted(live, client(FIRST, tmp_path)) == "refused"
    assert await greeted(live, client(SECOND, tmp_path, own=SECOND)) == "edge"
    assert await greeted(live, client(SECOND, tmp_path, own=FIRST)) == "refused", "it is trusted no more"
    with pytest.raises(OSError, match="No such file"):
        live.replace(str(tmp_path / "none"), "")
    assert await greeted(live, client(SECOND, tmp_path)) == "nobody", "all stays as it was"


async def test_who_must_show_a_certificate_must_after_a_change_too(tmp_path: Path) -> None:
    live = LiveContext(server_context(), ssl.CERT_REQUIRED)
    for ca in (FIRST, SECOND):
        show(live, ca, tmp_path)
        assert await greeted(live, client(ca, tmp_path)) == "refused"
        assert await greeted(live, client(ca, tmp_path, own=ca)) == "edge"


@pytest.mark.parametrize("admits", [True, False])
async def test_a_lapsed_certificate_is_taken_where_somebody_behind_judges_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, admits: bool
) -> None:
    live = LiveContext(server_context(), ssl.CERT_OPTIONAL)
    if admits:
        admit_lapsed(live.context)
    show(live, FIRST, tmp_path)
    monkeypatch.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=1))
    first, second = (client(FIRST, tmp_path, own=own, days=0.5) for own in (FIRST, SECOND))
    assert await greeted(live, first) == ("edge" if admits else "refused")
    assert await greeted(live, second) == "refused", "but of our CA only"


async def test_tls_1_2_is_spoken_by_flag_only_and_nothing_older(tmp_path: Path) -> None:
    for tls_min, expected in ((TlsMin.TLS_1_3, "refused"), (TlsMin.TLS_1_2, "nobody")):
        live = LiveContext(server_context(tls_min))
        show(live, FIRST, tmp_path)
        old = client_context(TlsMin.TLS_1_2)
        old.load_verify_locations(cadata=FIRST.cert_pem.decode())
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await greeted(live, old) == expected
    ciphers = {each["name"] for each in server_context(TlsMin.TLS_1_2).get_ciphers() if each["protocol"] == "TLSv1.2"}
    assert ciphers
    assert all(name.startswith("ECDHE") and ("GCM" in name or "CHACHA20" in name) for name in ciphers)


def test_clients_verify_chain_and_name_and_servers_resume_nothing() -> None:
    for tls_min in TlsMin:
        context = client_context(tls_min)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert server_context(tls_min).num_tickets == 0
        assert server_context(tls_min).options & ssl.OP_NO_TICKET


async def test_a_connection_has_no_more_of_a_buffer_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)
    read_little_at_a_time()
    live, sent = LiveContext(server_context()), b"x" * (5 * READ_BYTES)
    show(live, FIRST, tmp_path)

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.close()

    async with await asyncio.start_server(send, "127.0.0.1", 0, ssl=live.context) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client(FIRST, tmp_path))
        assert len(writer.transport._ssl_protocol._ssl_buffer) == READ_BYTES  # type: ignore[attr-defined]
        assert await reader.read() == sent
        writer.close()
