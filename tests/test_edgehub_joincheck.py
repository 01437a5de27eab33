"""What `edgecore join --check` says of real endpoints, step by step, and that it leaves everything as it was."""

import asyncio
import datetime
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apimachinery.errors import ApiError, NotFound, TooManyRequests
from apimachinery.keys import Node
from apiserver.http import Request, Response, serve
from componentbase import pki
from componentbase.endpoints import Endpoint
from componentbase.files import lock_dir
from edgehub.join import join
from edgehub.joincheck import Finding, Verdict, check
from tests.harness.joining import JoinableHub, joinable_hub

EDGE = Node("edge-1")
STEPS = (
    *("directory", "token form", "name form", "resolution", "port", "CA", "certificate"),
    *("clock", "token", "name", "link"),
)


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "edge"


async def found(
    cloud: Endpoint, token: str, home: Path, node: Node = EDGE, *, replace: bool = False
) -> dict[str, Finding]:
    findings = await asyncio.to_thread(lambda: list(check(cloud, token, node, home, replace=replace, timeout_s=2.0)))
    assert sorted(finding.step for finding in findings) == sorted(STEPS)
    return {finding.step: finding for finding in findings}


def verdicts(findings: dict[str, Finding]) -> str:
    """One letter per step, in the order of STEPS: o, w, F or -."""
    return "".join(findings[step].verdict[0] for step in STEPS)


async def test_everything_is_tried_and_nothing_is_changed(hub: JoinableHub, home: Path) -> None:
    token = await hub.token(is_single_use=True)
    before = json.dumps(list(hub.objects.kept.values()))
    findings = await found(hub.endpoint, token, home)
    # Nothing listens at the link's port of this hub.
    assert verdicts(findings) == "ooooooooooF"
    assert "nothing listens there; nodes need this port too: see firewalls, and cloudcore's --listen" in str(
        findings["link"]
    )
    assert str(findings["token"]).startswith("ok    token        is good for edge-1 until ")
    assert not home.exists()
    assert json.dumps(list(hub.objects.kept.values())) == before


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://127.0.0.1:1", "cannot reach hub.invalid:10002: the proxy 127.0.0.1:1: "),
        ("socks5://127.0.0.1:1", "HTTPS_PROXY: a proxy is http://"),
    ],
)
async def test_the_way_that_is_checked_is_that_of_joining(
    proxy: str, told: str, hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    findings = await found(Endpoint("hub.invalid", 10002), await hub.token(), home)
    assert told in str(findings["port"] if findings["resolution"].verdict is Verdict.OK else findings["resolution"])


async def test_a_link_that_is_there_is_seen(hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: Request) -> Response:
        raise AssertionError("nobody without a certificate gets here")

    link = hub.authority.server(["127.0.0.1"]).link_context
    async with serve(never, host="127.0.0.1", port=0, ssl_context=link) as server:
        monkeypatch.setattr("cloudhub.join.Link._asdict", lambda _: {"port": server.port, "path": "/v1/link"})
        assert verdicts(await found(hub.endpoint, await hub.token(), home)) == "o" * 11
    stranger = pki.issue_server_cert(pki.create_ca("other", 1), ["127.0.0.1"], 1)
    pair = home.parent / "stranger.pem"
    pair.write_bytes(stranger.cert_pem + stranger.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    async with serve(never, host="127.0.0.1", port=0, ssl_context=context) as server:
        monkeypatch.setattr("cloudhub.join.Link._asdict", lambda _: {"port": server.port, "path": "/v1/link"})
        findings = await found(hub.endpoint, await hub.token(), home)
    assert verdicts(findings) == "ooooooooooF"
    assert "its certificate is not to be trusted" in findings["link"].text


async def test_a_token_or_a_name_that_would_not_do_is_told(hub: JoinableHub, home: Path) -> None:
    once, deleted = await hub.token(is_single_use=True), await hub.token()
    await asyncio.to_thread(join, hub.endpoint, once, Node("edge-9"), home, lambda _: "")
    await hub.tokens.delete(deleted)
    for token, node, verdict, said in (
        (await hub.token("edge-2"), "edge-1", "ooooooooF--", "made for another node than edge-1"),
        (once, "edge-1", "ooooooooF--", "single use and has been used"),
        (deleted, "edge-1", "ooooooooF--", "not known here"),
        (await hub.token(), "edge-9", "oooooooooF-", "cloudcore token create --replace --nodes edge-9"),
    ):
        findings = await found(hub.endpoint, token, home.parent / "another", Node(node))
        assert verdicts(findings) == verdict
        [failed] = [finding for finding in findings.values() if finding.verdict is Verdict.FAIL]
        assert said in failed.text


async def test_a_malformed_token_or_name_does_not_keep_the_rest_from_being_tried(hub: JoinableHub, home: Path) -> None:
    assert verdicts(await found(hub.endpoint, "fl1.cut", home)) == "oFooo------"
    for name, why in (("x" * 53, "1 to 52 characters"), ("Rack_7", '"Rack_7" cannot be a node name')):
        findings = await found(hub.endpoint, await hub.token(), home, Node(name))
        assert verdicts(findings) == "ooFooooo-F-"
        assert why in findings["name form"].text
        assert why in findings["name"].text


async def test_another_ca_does_not_see_the_token(hub: JoinableHub, home: Path) -> None:
    token = await hub.token()
    async with joinable_hub() as impostor:
        findings = await found(impostor.endpoint, token, home)
    assert verdicts(findings) == "oooooF-----"
    assert "The token was not sent" in findings["CA"].text


async def test_a_certificate_for_another_name_is_told(home: Path) -> None:
    async with joinable_hub(["hub.example.org"]) as hub:
        findings = await found(hub.endpoint, await hub.token(), home)
    assert verdicts(findings) == "ooooooFo---"
    assert "--advertise 127.0.0.1" in findings["certificate"].text


@pytest.mark.parametrize("days", [30, -700])
async def test_a_clock_that_is_off_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    there = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=days)
    monkeypatch.setattr(pki, "_now", lambda: there)
    async with joinable_hub() as hub:
        monkeypatch.undo()
        findings = await found(hub.endpoint, await hub.token(), home)
    assert findings["certificate"].verdict is Verdict.FAIL
    assert "this machine's clock says" in findings["certificate"].text


async def test_a_clock_that_differs_from_the_hubs_is_a_warning(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehub.joinhub.Hub._note_clock", lambda self, _: setattr(self, "_ahead_s", 90.0))
    findings = await found(hub.endpoint, await hub.token(), home)
    assert findings["clock"].verdict is Verdict.WARN
    assert "90 s behind cloudcore's: set it" in findings["clock"].text


async def test_nobody_listening_is_told(hub: JoinableHub, home: Path, free_port: int) -> None:
    findings = await found(Endpoint("127.0.0.1", free_port), await hub.token(), home)
    assert verdicts(findings) == "ooooF------"
    assert "nothing listens at" in findings["port"].text


async def test_a_name_without_an_address_is_told(hub: JoinableHub, home: Path) -> None:
    assert verdicts(await found(Endpoint("no-such-host.invalid", 1), await hub.token(), home)) == "oooF-------"


async def test_a_directory_that_has_joined_or_is_in_use_is_told(hub: JoinableHub, home: Path) -> None:
    token = await hub.token(may_replace=True)
    await asyncio.to_thread(join, hub.endpoint, token, EDGE, home, lambda _: "")
    findings = await found(hub.endpoint, token, home)
    assert findings["directory"].verdict is Verdict.FAIL
    assert "has joined already" in findings["directory"].text
    assert "replaced" in (await found(hub.endpoint, token, home, replace=True))["directory"].text
    with lock_dir(home):
        assert "in use by process" in (await found(hub.endpoint, token, home, replace=True))["directory"].text


@pytest.mark.parametrize(
    ("error", "verdict", "said"),
    [
        (NotFound("this is the join endpoint of cloudcore"), "oooooooow--", "of an earlier release"),
        (TooManyRequests("come back in 6 s", retry_after_s=6), "ooooooooF--", "come back in 6 s; check again then"),
    ],
)
async def test_a_hub_that_cannot_be_asked_is_told(
    hub: JoinableHub, home: Path, error: ApiError, verdict: str, said: str
) -> None:
    async def answer(request: Request) -> Response:
        if request.path == "/v1/ca":
            return Response(200, [], hub.authority.certificate_pem)
        raise error

    context = hub.authority.server(["127.0.0.1"]).join_context
    async with serve(answer, host="127.0.0.1", port=0, ssl_context=context) as server:
        findings = await found(Endpoint("127.0.0.1", server.port), await hub.token(), home)
    assert verdicts(findings) == verdict
    assert said in findings["token"].text
