"""How a node begins, and what keeps it from beginning. That its parts work together: test_end_to_end.py."""

import logging
import ssl
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import PODS
from componentbase.brokers import BrokerAddress
from componentbase.cli import CommandError
from componentbase.endpoints import Endpoint
from componentbase.files import Locked, lock_dir
from componentbase.proxies import Proxy
from devicetwin.bus import Bus
from edgecore import compose
from edgecore.compose import serve
from edgecore.joints import CloudNews, Outbox
from edgecore.settings import CloudConfig, EdgeConfig, TransportMode
from edgehub import quicchoice
from edgehub.connector import Hubs, LinkStatus
from link.frames import Batch, Cursor, Delta
from metamanager.store import Store


async def test_a_node_runs_once_in_a_directory(tmp_path: Path) -> None:
    with lock_dir(tmp_path), pytest.raises(Locked):
        await serve(EdgeConfig(node="n"), tmp_path)


async def test_without_certificates_nothing_is_begun(tmp_path: Path) -> None:
    cloud = CloudConfig(certificate_authority=tmp_path / "ca.crt")
    with pytest.raises(CommandError, match=r"ca\.crt: No such file or directory; put it back, or join again"):
        await serve(EdgeConfig(node="n", cloud=cloud), tmp_path)
    assert not (tmp_path / "edge.db").exists()


async def test_what_is_committed_is_news_to_the_twins(tmp_path: Path) -> None:
    news, key = CloudNews(lambda: 1.0), ObjectKey(PODS, "default", "p")
    store, settings, link = await Store.open(tmp_path / "edge.db"), EdgeConfig(node="n"), LinkStatus()
    hubs = Hubs("127.0.0.1", 1, ssl.create_default_context(), None, None)
    connector = compose._connector(settings, hubs, store, link, None, news)
    await connector._commit([Batch(Cursor("e", 1), (Delta(key, None, b""),), synced=True)])
    assert news.is_coming()
    bus = Bus(BrokerAddress(Endpoint("127.0.0.1", 1)), "edge", ())
    twins = compose._twins(settings, store, Outbox(store, connector.reports_waiting), bus, news)
    assert twins._yields == news.is_coming
    await store.close()


@pytest.mark.parametrize(
    ("mode", "installed", "made"),
    [
        (TransportMode.WEBSOCKET, True, False),
        (TransportMode.AUTO, True, True),
        (TransportMode.AUTO, False, True),
        (TransportMode.QUIC, True, True),
    ],
)
def test_quic_is_tried_where_that_is_wanted(
    mode: TransportMode, installed: bool, made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quicchoice, "is_installed", lambda: installed)
    assert (compose._quic(CloudConfig(transport=mode), tmp_path) is not None) is made


def test_quic_and_nothing_else_without_its_library_ends_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quicchoice, "is_installed", lambda: False)
    with pytest.raises(CommandError, match=r"install fairlead\[edge,quic\], or choose websocket"):
        compose._quic(CloudConfig(transport=TransportMode.QUIC), tmp_path)


def test_a_proxy_that_is_none_ends_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://u:secret@p:1")
    with pytest.raises(CommandError, match="https_proxy: a proxy is http://"):
        compose._proxy(CloudConfig(link=Endpoint("hub.example", 10000)))
    monkeypatch.setenv("https_proxy", "http://p:3128")
    assert compose._proxy(CloudConfig(link=Endpoint("hub.example", 10000))) == Proxy(Endpoint("p", 3128))
    assert compose._proxy(CloudConfig(link=Endpoint("127.0.0.1", 10000))) is None


def test_quic_alone_passes_a_proxy_by_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", "http://p:3128")
    cloud = CloudConfig(link=Endpoint("hub.example", 10000), transport=TransportMode.QUIC)
    with caplog.at_level(logging.INFO):
        assert compose._proxy(cloud) is None
    assert caplog.messages == ["the link over QUIC passes the proxy by: UDP is dialled directly"]
