"""`--signer kubernetes` with real processes: kubectl decides, and a hub lets in whom it let in before."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.signing import API_CLIENT
from cloudhub.rbac import Wanted
from cloudhub.settings import KUBELET_SIGNER
from componentbase import pki
from tests.conftest import need_tool
from tests.harness.hostile import RawEdge, hello, node_context
from tests.harness.mosquitto import free_port
from tests.harness.rights import hub_kubeconfig
from tests.harness.site import Process, Site

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def tool() -> Path:
    return need_tool("kubectl-current")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tool: Path) -> Iterator[Site]:
    """Two replicas: one approves what it has checked, one leaves that to people. Both have the rights of the first."""
    with Site(tmp_path_factory.mktemp("signer")) as site:
        site.apply_crds(tool)
        limited = hub_kubeconfig(site.kubeconfig, Wanted(interest=False, signer=KUBELET_SIGNER))
        flags = ("--kubeconfig", str(limited), "--signer", "kubernetes")
        site.start_cloud("cloud", flags=flags)
        site.ports |= {"strict-link": free_port(), "strict-join": free_port()}
        ports = {"link": site.ports["strict-link"], "join": site.ports["strict-join"]}
        site.start_cloud("strict", flags=(*flags, "--no-approve"), **ports)
        yield site


@pytest.fixture(scope="module")
def asking(site: Site) -> dict[str, Process]:
    """`edgecore join` of two nodes at the replica that does not approve, as long as it takes."""

    def joining(node: str) -> Process:
        token = site.token("--single-use", "--nodes", node)
        where = ("--cloud", f"127.0.0.1:{site.ports['strict-join']}", "--data-dir", str(site.directory / node))
        return site.start(f"{node}-joins", "edgecore", "join", *where, "--token", token, "--node", node)

    return {node: joining(node) for node in ("edge-2", "edge-3")}


def request_of(site: Site, tool: Path, node: str) -> str:
    found: list[str] = []

    def is_there() -> bool:
        listed = site.kubectl(tool, "get", "csr", "-l", f"fairlead.io/node={node}", "-o", "name").stdout.split()
        found[:] = [each.partition("/")[2] for each in listed]
        return bool(found)

    site.until(is_there, f"there is a request of {node}")
    return found[0]


def test_a_hub_that_approves_joins_a_node_which_the_cluster_takes_for_one(site: Site, tool: Path) -> None:
    site.join("edge-1")
    site.start_edge("edge-1")
    shown = site.kubectl(tool, "get", "csr").stdout
    assert "system:serviceaccount:fairlead-system:cloudcore" in shown
    assert "Approved,Issued" in shown
    site.until(lambda: site.kubectl(tool, "get", "node", "edge-1", check=False).returncode == 0, "there is a Node")
    home = site.directory / "edge-1" / "pki"
    config = json.loads(site.kubeconfig.read_text())
    config["users"][0]["user"] = {"client-certificate": str(home / "edge.crt"), "client-key": str(home / "edge.key")}
    own = site.directory / "edge-1.kubeconfig"
    own.write_text(json.dumps(config))
    who = site.kubectl(tool, "auth", "whoami", "-o", "json", "--kubeconfig", str(own)).stdout
    assert json.loads(who)["status"]["userInfo"] == {
        "username": "system:node:edge-1",
        "groups": ["system:nodes", "system:authenticated"],
    }
    assert site.metrics("cloudcore", "cloud")["hub_joins_total"] == 1
    assert "orbidden" not in site.processes["cloud"].log.read_text()


def test_a_person_approves_with_kubectl_what_a_join_waits_for(
    site: Site, tool: Path, asking: dict[str, Process]
) -> None:
    joining = asking["edge-2"]
    name = request_of(site, tool, "edge-2")
    site.until(
        lambda: f"kubectl certificate approve {name}" in joining.log.read_text(), "it is said what to do", joining
    )
    site.kubectl(tool, "certificate", "approve", name)
    assert joining.wait() == 0, joining.tail()
    assert "edge-2 has joined" in joining.log.read_text()
    assert site.metrics("cloudcore", "strict")["hub_joins_total"] == 1


def test_a_person_denies_and_the_join_ends_and_says_so(site: Site, tool: Path, asking: dict[str, Process]) -> None:
    joining = asking["edge-3"]
    site.kubectl(tool, "certificate", "deny", request_of(site, tool, "edge-3"))
    assert joining.wait() == 1
    told = " ".join(joining.log.read_text().split())
    assert "was denied in the cluster (KubectlDeny: This CSR was denied by kubectl certificate deny.)" in told
    assert not (site.directory / "edge-3" / "edgecore.yaml").exists()


FOREIGN = {
    "kubelet": (("system:node:worker-7", "system:nodes"), KUBELET_SIGNER, "no hub has let this key in as worker-7"),
    "clone": (("system:node:edge-1", "system:nodes"), KUBELET_SIGNER, "another machine has joined in its name"),
    "user": (("system:node:edge-1", "people"), API_CLIENT, "your certificate is not a node's"),
    "admin": (("jane", "people"), API_CLIENT, "your certificate is not a node's"),
}
"""Certificates of the cluster's CA that no hub gave out: subject, signer, what the link says to them."""


async def test_the_link_takes_keys_that_a_hub_let_in_and_no_others_of_the_clusters_ca(site: Site, tool: Path) -> None:
    keys, requests = {}, []
    for name, (subject, signer, _) in FOREIGN.items():
        keys[name], csr = pki.make_key_and_csr(*subject)
        usages = ["client auth", "digital signature"]
        spec = {"request": base64.b64encode(csr).decode(), "signerName": signer, "usages": usages}
        kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
        requests.append(kind | {"metadata": {"name": name}, "spec": spec})
    listed = {"apiVersion": "v1", "kind": "List", "items": requests}
    site.kubectl(tool, "create", "-f", "-", stdin=json.dumps(listed))
    site.kubectl(tool, "certificate", "approve", *FOREIGN)
    certificates: list[str] = []

    def are_signed() -> bool:
        got = site.kubectl(tool, "get", "csr", *FOREIGN, "-o", "jsonpath={.items[*].status.certificate}").stdout
        certificates[:] = got.split()
        return len(certificates) == len(FOREIGN)

    site.until(are_signed, "they are signed")
    for (name, (subject, _, told)), certificate in zip(FOREIGN.items(), certificates, strict=True):
        home = site.directory / name / "pki"
        home.mkdir(parents=True)
        (home / "edge.crt").write_bytes(base64.b64decode(certificate))
        (home / "edge.key").write_bytes(keys[name])
        (home / "ca.crt").write_bytes((site.directory / "edge-1" / "pki" / "ca.crt").read_bytes())
        edge = await RawEdge.dialled(site.ports["link"], node_context(home.parent))
        edge.say(hello(subject[0].removeprefix("system:node:")))
        assert told in await edge.goodbye()
        await edge.close()
