"""The cluster as the signer of nodes, against the embedded apiserver, with the rights that are printed."""

import asyncio
import base64
import datetime
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from apimachinery.errors import Forbidden, Invalid
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import JSON
from apiserver import signer as controller
from cloudhub import rbac
from cloudhub.clientcas import ClientCas
from cloudhub.clustersigner import OPEN_S, ClusterSigner, Policy, name_of
from cloudhub.roster import Roster
from cloudhub.settings import KUBELET_SIGNER
from cloudhub.signers import Issued, SignerNotTrusted, SigningDenied, SigningFailed, Waiting, Wanted
from componentbase import pki
from componentbase.certificates import validity
from edgehub.join import join
from edgehub.joincheck import Verdict, check
from edgehub.joinhub import Busy, Hub, Pending, Refused, Unsigned
from edgehub.renewal import settle
from edgehub.renewing import prepare
from tests.harness.cluster import Cluster, ClusterObjects, cluster
from tests.harness.joining import JoinableHub, joinable_hub

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
EDGE = Node("edge-1")
CA = pki.create_ca("clients", 1)
KEY, CSR = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
WANTED = Wanted(EDGE, CSR, pki.read_csr(CSR).key, "token abcdefgh", "192.0.2.1:5")
NAME = name_of(WANTED)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    """The user `hub` has what `cloudcore rbac --signer kubernetes` prints for signing, and no more."""
    async with cluster(tmp_path, "hub") as made, asyncio.TaskGroup() as group:
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        await controller.publish(made.storage, CA.cert_pem)
        for value in yaml.safe_load_all(rbac.text(rbac.Wanted(interest=False, signer=KUBELET_SIGNER))):
            if value["metadata"]["name"] == rbac.SIGNER:
                for subject in value.get("subjects", ()):
                    subject.clear()
                    subject |= {"kind": "User", "name": "hub"}
                namespace = value["metadata"].get("namespace")
                place = f"namespaces/{namespace}/" if namespace else ""
                plural = f"{value['kind'].lower()}s"
                await made("POST", f"/apis/rbac.authorization.k8s.io/v1/{place}{plural}", value)
        signing = group.create_task(controller.sign(made.storage, CA), name="signer")
        yield made
        signing.cancel()


def signer(api: Cluster, **policy: Any) -> ClusterSigner:
    objects = ClusterObjects(api, "hub")
    return ClusterSigner(objects, ClientCas(objects), Policy(**policy))


async def decide(api: Cluster, name: str, kind: str, **more: str) -> None:
    condition = {"type": kind, "status": "True", "reason": "ByHand"} | more
    await api("PATCH", f"{CSRS}/{name}/approval", {"status": {"conditions": [condition]}})


async def only_request(api: Cluster) -> str:
    """The name of the one that there is, once there is one."""
    async with asyncio.timeout(10):
        while not (items := (await api("GET", CSRS))["items"]):
            await asyncio.sleep(0.02)
    (found,) = items
    return str(found["metadata"]["name"])


async def test_a_hub_that_approves_gets_a_certificate_at_once_and_the_same_one_again(api: Cluster) -> None:
    made = signer(api, certificate_s=7200)
    assert await made.found(WANTED) is None
    issued = await made.ask(WANTED)
    assert isinstance(issued, Issued)
    assert pki.subject_of(issued.certificate) == ("system:node:edge-1", ("system:nodes",))
    assert pki.key_id(issued.certificate) == WANTED.key
    assert 7190 < validity(issued.certificate).lifetime_s <= 7201
    assert await made.ask(WANTED) == await signer(api).found(WANTED) == issued
    found = await api("GET", f"{CSRS}/{NAME}")
    assert found["metadata"]["labels"] == {"fairlead.io/node": "edge-1"}
    assert found["metadata"]["annotations"]["fairlead.io/vouched-by"] == "token abcdefgh"
    assert found["spec"]["username"] == "hub"
    assert found["status"]["conditions"][0]["message"] == "cloudcore has checked the node's token abcdefgh"


async def test_rights_that_signing_lacks_are_told_with_their_remedy(
    api: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await signer(api).tell_missing_rights()
    assert not caplog.records
    await signer(api, signer="example.com/own").tell_missing_rights()
    [told] = caplog.records
    assert vars(told)["missing"] == "approve signers example.com/own"
    remedy = "cloudcore rbac --signer kubernetes --signer-name example.com/own | kubectl apply -f -"
    assert vars(told)["remedy"] == remedy


async def test_of_replicas_that_ask_at_once_all_get_the_same(api: Cluster) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(signer(api).ask(WANTED), name=f"replica[{n}]") for n in range(3)]
    assert len({each.result() for each in asked}) == 1


async def test_a_hub_that_does_not_approve_says_who_is_to_and_how(api: Cluster) -> None:
    made = signer(api, approves=False)
    for _ in range(2):
        told = await made.ask(WANTED)
        assert isinstance(told, Waiting)
        assert f"`kubectl certificate approve {NAME}`" in told.text
    await decide(api, NAME, "Approved")
    assert isinstance(await made.ask(WANTED), Issued)


async def test_whoever_waits_asks_more_and_more_seldom(api: Cluster) -> None:
    objects, late = ClusterObjects(api, "hub"), datetime.timedelta()

    def now() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + late

    made = ClusterSigner(objects, ClientCas(objects), Policy(approves=False), now)
    for minutes, again_s in ((0, 2), (2, 30), (600, 60)):
        late = datetime.timedelta(minutes=minutes)
        told = await made.ask(WANTED)
        assert isinstance(told, Waiting)
        assert told.again_s == again_s


async def test_an_approval_of_a_signer_that_is_not_there_is_waited_for(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudhub.clustersigner.LOOKS_S", (0.01,))
    with pytest.raises(Forbidden, match=r'signerName "example\.com/own"'):
        await signer(api, signer="example.com/own").ask(WANTED)
    await decide(api, NAME, "Approved")
    told = await signer(api, signer="example.com/own").ask(WANTED)
    assert isinstance(told, Waiting)
    assert f"the signer example.com/own has not signed it yet: see `kubectl describe csr {NAME}`" in told.text


async def test_what_was_denied_or_failed_is_told_and_how_to_ask_again(api: Cluster) -> None:
    made = signer(api, approves=False)
    await made.ask(WANTED)
    await decide(api, NAME, "Denied", message="not in\nthe inventory")
    with pytest.raises(SigningDenied, match=r"was denied.* \(ByHand: not in the inventory\).*kubectl delete csr"):
        await signer(api).ask(WANTED)
    await api("DELETE", f"{CSRS}/{NAME}")
    await made.ask(WANTED)
    condition = {"type": "Failed", "status": "True", "reason": "ByHand", "message": "no more of them"}
    await api("PATCH", f"{CSRS}/{NAME}/status", {"status": {"conditions": [condition]}})
    with pytest.raises(SigningFailed, match=rf"does not sign {NAME} \(ByHand: no more of them\); to ask again"):
        await signer(api).ask(WANTED)
    _, bare = pki.make_key_and_csr("system:node:edge-1", "somebody")
    with pytest.raises(Invalid, match="must be O=system:nodes, CN=system:node:edge-1"):
        await signer(api).found(WANTED._replace(csr=bare, key=pki.read_csr(bare).key))


async def test_what_somebody_else_wrote_under_the_name_is_not_taken(api: Cluster) -> None:
    """A node may make requests by itself: with its key for longer, say, or for another node; the hub would approve."""
    _, other = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    elsewhere, nobody = (
        pki.make_csr(KEY, "system:node:cp-1", "system:nodes"),
        pki.make_csr(KEY, "system:node:edge-1", "x"),
    )
    usages = ["client auth", "digital signature"]
    spec = {"request": CSR, "signerName": KUBELET_SIGNER, "usages": usages, "expirationSeconds": 3600}
    for changed in (
        {"request": other},
        {"request": elsewhere},
        {"request": nobody},
        {"signerName": "example.com/own"},
        {"usages": [*usages, "server auth"]},
        {"expirationSeconds": 3601},
        {"expirationSeconds": None},
        {},
    ):
        body: dict[str, Any] = spec | changed
        body["request"] = base64.b64encode(body["request"]).decode()
        await api("POST", CSRS, {"metadata": {"name": NAME}, "spec": body})
        if not changed:
            assert isinstance(await signer(api, certificate_s=3600).ask(WANTED), Issued)
            return
        with pytest.raises(SigningFailed, match="is not what cloudcore asks for: to ask again: `kubectl delete csr"):
            await signer(api, certificate_s=3600).ask(WANTED)
        assert not (await api("GET", f"{CSRS}/{NAME}")).get("status"), "and it is not approved"
        await api("DELETE", f"{CSRS}/{NAME}")


async def test_what_takes_the_place_of_a_request_before_it_is_approved_is_looked_at_again(api: Cluster) -> None:
    elsewhere = base64.b64encode(pki.make_csr(KEY, "system:node:cp-1", "system:nodes")).decode()
    spec = {"request": elsewhere, "signerName": KUBELET_SIGNER, "usages": ["client auth", "digital signature"]}

    class Swapping(ClusterObjects):
        async def replace(self, key: ObjectKey, value: Mapping[str, JSON], subresource: str = "") -> Mapping[str, JSON]:
            if (await api("GET", f"{CSRS}/{NAME}"))["spec"]["request"] != elsewhere:
                await api("DELETE", f"{CSRS}/{NAME}")
                await api("POST", CSRS, {"metadata": {"name": NAME}, "spec": spec | {"expirationSeconds": 3600}})
            return await super().replace(key, value, subresource)

    objects = Swapping(api, "hub")
    with pytest.raises(SigningFailed, match="is not what cloudcore asks for"):
        await ClusterSigner(objects, ClientCas(objects)).ask(WANTED)
    assert not (await api("GET", f"{CSRS}/{NAME}")).get("status")


async def test_what_a_hub_asked_for_outlasts_another_configured_lifetime(api: Cluster) -> None:
    assert isinstance(await signer(api, approves=False, certificate_s=7200).ask(WANTED), Waiting)
    assert isinstance(await signer(api, certificate_s=3600).ask(WANTED), Issued)


async def test_a_certificate_that_has_lapsed_is_not_handed_out(api: Cluster) -> None:
    objects = ClusterObjects(api, "hub")
    await signer(api, certificate_s=3600).ask(WANTED)
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    with pytest.raises(SigningFailed, match=f"of {NAME} lapsed at .*; to ask again: `kubectl delete csr {NAME}`"):
        await ClusterSigner(objects, ClientCas(objects), now=lambda: late).found(WANTED)


async def test_a_signer_that_gives_something_else_is_found_out(api: Cluster) -> None:
    made = signer(api, signer="example.com/own", approves=False)
    await made.ask(WANTED)
    await decide(api, NAME, "Approved")
    _, other = pki.make_key_and_csr("system:node:edge-2", "system:nodes")
    for ca, csr, told in (
        (pki.create_ca("other", 1), CSR, "of a CA that this hub does not trust: start cloudcore with --client-ca"),
        (CA, other, "something else than was asked for"),
    ):
        found = await api("GET", f"{CSRS}/{NAME}")
        certificate = pki.sign_as_requested(ca, csr, ["client auth"], 1)
        found["status"]["certificate"] = base64.b64encode(certificate).decode()
        await api("DELETE", f"{CSRS}/{NAME}")
        await made.ask(WANTED)
        await decide(api, NAME, "Approved")
        status = {"certificate": found["status"]["certificate"]}
        await api("PATCH", f"{CSRS}/{NAME}/status", {"status": status})
        with pytest.raises(SignerNotTrusted, match=told):
            await made.ask(WANTED)


# ---- joining and renewing by it


@pytest.fixture
async def hub(api: Cluster) -> AsyncIterator[JoinableHub]:
    cas = ClientCas(ClusterObjects(api, "hub"))
    async with joinable_hub(signer=signer(api, approves=False), others=cas) as made:
        yield made


async def run(hub: JoinableHub, token: str, home: Path) -> None:
    await asyncio.to_thread(join, hub.endpoint, token, EDGE, home, lambda _: "")


class Impatient:
    """The time as edgehub.join has it, for somebody who presses ctrl-c rather than wait once more."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, after: int) -> None:
        self._left = after

    def sleep(self, _: float) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


async def interrupted(
    hub: JoinableHub, token: str, home: Path, monkeypatch: pytest.MonkeyPatch, after: int = 1
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("edgehub.join.time", Impatient(after))
        await run(hub, token, home)


async def test_a_join_waits_for_who_decides_and_uses_its_token_once(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, token = tmp_path / "edge", await hub.token()
    await interrupted(hub, token, home, monkeypatch, after=3)
    assert (home / ".joining" / "pki" / "edge.key").exists()
    assert not (home / "pki").exists()
    request = await only_request(api)
    waits = [record for record in caplog.records if "the hub waits" in record.message]
    assert len(waits) == 1, "it is said once, and not each time that it asks"
    assert f"kubectl certificate approve {request}" in str(waits[0].__dict__["for"])
    key = (home / ".joining" / "pki" / "edge.key").read_bytes()
    other = await hub.token("edge-2")
    await decide(api, request, "Approved")
    await run(hub, token, home)
    assert (home / "pki" / "edge.key").read_bytes() == key
    assert pki.leads_to((home / "pki" / "edge.crt").read_bytes(), CA.cert_pem)
    assert (home / "pki" / "ca.crt").read_bytes() == hub.authority.certificate_pem, "hubs are our own CA's"
    uses = {each.id: each.uses for each in await hub.tokens.list()}
    assert (used := uses[token.split(".")[1]]) is not None
    assert used.times == 1
    assert uses[other.split(".")[1]] is None
    assert hub.counts.facts()["joined"] == 1
    assert hub.counts.waiting >= 3


async def test_a_check_says_beforehand_that_somebody_has_to_approve(hub: JoinableHub, tmp_path: Path) -> None:
    token = await hub.token()
    found = await asyncio.to_thread(lambda: list(check(hub.endpoint, token, EDGE, tmp_path / "edge")))
    told = {each.step: each for each in found}
    assert told["approval"].verdict is Verdict.WARN
    assert "kubectl certificate approve" in told["approval"].text
    assert told["token"].verdict is told["name"].verdict is Verdict.OK


async def test_a_token_for_a_single_use_outlasts_a_nights_wait(api: Cluster, hub: JoinableHub, tmp_path: Path) -> None:
    home, token = tmp_path / "edge", await hub.token(is_single_use=True)
    ca = await asyncio.to_thread(Hub(hub.endpoint, 10).fetch_ca, hub.authority.pin)
    body = {"node": EDGE, "token": token, "csr": CSR.decode()}
    for _ in range(2):
        with pytest.raises(Pending, match="is to be approved"):
            await asyncio.to_thread(Hub(hub.endpoint, 10).join, ca, body)
        hub.now += datetime.timedelta(hours=11)
    with pytest.raises(Refused, match="single use"):
        await run(hub, token, home)
    await decide(api, await only_request(api), "Approved")
    answer = await asyncio.to_thread(Hub(hub.endpoint, 10).join, ca, body)
    assert pki.key_id(answer.certificate.encode()) == WANTED.key


async def test_another_key_of_a_node_asks_only_when_the_first_is_decided(api: Cluster, hub: JoinableHub) -> None:
    """Else one token, or one certificate, fills the cluster's store with requests."""
    token = await hub.token()
    ca = await asyncio.to_thread(Hub(hub.endpoint, 10).fetch_ca, hub.authority.pin)

    async def ask(csr: bytes) -> None:
        body = {"node": EDGE, "token": token, "csr": csr.decode()}
        await asyncio.to_thread(Hub(hub.endpoint, 10).join, ca, body)

    _, other = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    for _ in range(2):
        with pytest.raises(Pending):
            await ask(CSR)
        with pytest.raises(
            Busy, match="another key has asked for a certificate of edge-1, and that is not decided"
        ) as e:
            await ask(other)
        assert not isinstance(e.value, Pending)
        assert e.value.wait_s == 60
    assert await only_request(api) == NAME
    await decide(api, NAME, "Denied")
    with pytest.raises(Pending):
        await ask(other)
    assert len((await api("GET", CSRS))["items"]) == 2
    assert hub.counts.facts()["refused"] == {"too-many": 2}
    hub.monotonic_s += OPEN_S
    with pytest.raises(Unsigned, match="denied"):
        await ask(CSR)
    _, third = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    with pytest.raises(Pending):  # the second is old
        await ask(third)


async def test_one_token_has_so_many_requests_wait_in_an_hour(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudhub.join.WAITING_MOST", 2)
    monkeypatch.setattr("cloudhub.clustersigner.LOOKS_S", ())
    async with joinable_hub(signer=signer(api, approves=False)) as hub:
        ca, tokens = hub.authority.certificate_pem.decode(), [await hub.token(), await hub.token()]

        async def ask(number: int, token: str) -> None:
            _, csr = pki.make_key_and_csr(f"system:node:edge-{number}", "system:nodes")
            body = {"node": f"edge-{number}", "token": token, "csr": csr.decode()}
            await asyncio.to_thread(Hub(hub.endpoint, 10).join, ca, body)

        for number in range(2):
            with pytest.raises(Pending):
                await ask(number, tokens[0])
        with pytest.raises(Busy, match=r"too many requests with the token .* wait for somebody who decides: .* 3600 s"):
            await ask(2, tokens[0])
        assert len((await api("GET", CSRS))["items"]) == 2
        with pytest.raises(Pending):
            await ask(2, tokens[1])


@pytest.mark.parametrize("is_single_use", [True, False])
async def test_the_advice_for_who_was_denied_while_he_waited_can_be_followed(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_single_use: bool
) -> None:
    home, token = tmp_path / "edge", await hub.token(is_single_use=is_single_use)
    loop = asyncio.get_running_loop()

    async def deny() -> None:
        await decide(api, await only_request(api), "Denied", message="no")

    monkeypatch.setattr("edgehub.join.time.sleep", lambda _: asyncio.run_coroutine_threadsafe(deny(), loop).result(10))
    with pytest.raises(Unsigned, match=r"denied in the cluster \(ByHand: no\); to ask again") as told:
        await run(hub, token, home)
    (name,) = re.findall(r"`kubectl delete csr (\S+)`, then the same command$", str(told.value))
    await api("DELETE", f"{CSRS}/{name}")

    async def approve() -> None:
        assert await only_request(api) == name
        await decide(api, name, "Approved")

    monkeypatch.setattr(
        "edgehub.join.time.sleep", lambda _: asyncio.run_coroutine_threadsafe(approve(), loop).result(10)
    )
    await run(hub, token, home)
    assert (home / "edgecore.yaml").exists()


async def test_who_is_denied_at_once_keeps_the_key_that_used_the_token(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, token = tmp_path / "edge", await hub.token(is_single_use=True)
    ask = ClusterSigner.ask

    async def denied(self: ClusterSigner, wanted: Wanted) -> Issued | Waiting:
        await ask(self, wanted)
        await decide(api, name_of(wanted), "Denied")
        return await ask(self, wanted)

    with monkeypatch.context() as patched, pytest.raises(Unsigned):
        patched.setattr(ClusterSigner, "ask", denied)
        await run(hub, token, home)
    name = await only_request(api)
    await api("DELETE", f"{CSRS}/{name}")
    await interrupted(hub, token, home, monkeypatch)
    assert await only_request(api) == name


async def test_a_token_that_was_good_when_it_was_asked_is_good_for_the_certificate(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, token = tmp_path / "edge", await hub.token(ttl=datetime.timedelta(hours=1))
    await interrupted(hub, token, home, monkeypatch)
    request = await only_request(api)
    hub.now += datetime.timedelta(hours=2)
    assert await hub.tokens.prune(hub.now) == 0
    with pytest.raises(Refused, match="the token expired"):  # it is good for nothing else
        await run(hub, token, tmp_path / "other")
    told = {each.step: each for each in await asyncio.to_thread(lambda: list(check(hub.endpoint, token, EDGE, home)))}
    assert told["token"].verdict is Verdict.OK
    await decide(api, request, "Approved")
    await run(hub, token, home)
    assert (home / "edgecore.yaml").exists()


async def test_a_join_that_is_denied_ends_and_keeps_its_key_for_another_try(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, token = tmp_path / "edge", await hub.token()
    await interrupted(hub, token, home, monkeypatch)
    request = await only_request(api)
    await decide(api, request, "Denied", message="no")
    with pytest.raises(Refused, match=r"was denied in the cluster \(ByHand: no\)"):
        await run(hub, token, home)
    assert not (home / "edgecore.yaml").exists()
    assert hub.counts.facts()["refused"] == {"denied": 1}
    await api("DELETE", f"{CSRS}/{request}")
    await interrupted(hub, token, home, monkeypatch)
    assert await only_request(api) == request, "it is asked again, for the same key"


async def test_a_renewal_that_waits_goes_on_with_its_key(
    api: Cluster, hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, token = tmp_path / "edge", await hub.token()
    await interrupted(hub, token, home, monkeypatch)
    first = await only_request(api)
    await decide(api, first, "Approved")
    await run(hub, token, home)
    keys = []
    for _ in range(2):
        with pytest.raises(Pending, match="is to be approved"):
            await asyncio.to_thread(prepare, home, EDGE, hub.endpoint, at_once=True)
        keys.append((home / ".renewing" / "pki" / "edge.key").read_bytes())
    assert keys[0] == keys[1]
    assert (await Roster(hub.objects).identities())[EDGE].is_confirmed, "the old one counts, and nothing else"
    [second] = [name for item in (await api("GET", CSRS))["items"] if (name := item["metadata"]["name"]) != first]
    await decide(api, second, "Approved")
    assert await asyncio.to_thread(prepare, home, EDGE, hub.endpoint, at_once=True)
    assert settle(home)
    assert (home / "pki" / "edge.key").read_bytes() == keys[0]
    assert hub.counts.renewed == 1


async def test_a_node_renews_by_the_cluster_and_nobody_with_its_name_from_elsewhere(
    api: Cluster, tmp_path: Path
) -> None:
    objects = ClusterObjects(api, "hub")
    async with joinable_hub(signer=signer(api), others=ClientCas(objects)) as hub:
        home = tmp_path / "edge"
        await run(hub, await hub.token(), home)
        before = (home / "pki" / "edge.crt").read_bytes()
        assert await asyncio.to_thread(prepare, home, EDGE, hub.endpoint, at_once=True)
        assert settle(home)
        after = (home / "pki" / "edge.crt").read_bytes()
        assert pki.key_id(after) != pki.key_id(before)
        assert (await Roster(hub.objects).identities())[EDGE].key == pki.key_id(after)
        assert hub.counts.renewed == 1
        for name in ("edge-1", "worker-7"):  # a kubelet's certificate has the form of a node's, and the same CA
            key, csr = pki.make_key_and_csr(f"system:node:{name}", "system:nodes")
            made = tmp_path / f"{name}.pem"
            made.write_bytes(pki.sign_as_requested(CA, csr, ["client auth", "digital signature"], 1) + key)
            context = ssl.create_default_context(cadata=hub.authority.certificate_pem.decode())
            context.load_cert_chain(made)
            _, wish = pki.make_key_and_csr(f"system:node:{name}", "system:nodes")
            asking = Hub(hub.endpoint, 10)
            told = "another key has the name" if name == "edge-1" else "no hub has let this key in as worker-7"
            with pytest.raises(Refused, match=told):
                await asyncio.to_thread(asking.renew, context, {"csr": wish.decode()})
        assert len((await api("GET", CSRS))["items"]) == 2, "nothing was asked of the cluster for them"
        assert json.dumps(hub.counts.facts()["refused"]) == '{"not-renewable": 2}'
