"""A hub with the rights that docs/operations.md asks for, and no others: a real apiserver refuses what is more."""

import json
from pathlib import Path

import pytest

from tests.conftest import need_tool
from tests.harness.rights import documented_rights
from tests.harness.site import Site
from tests.test_end_to_end import DEVICE, MODEL, NODE


@pytest.mark.timeout(120)
def test_a_hub_works_with_the_rights_that_are_documented(tmp_path: Path) -> None:
    kubectl = need_tool("kubectl-current")
    with Site(tmp_path) as site:
        admin = site.kubeconfig
        rights = {"apiVersion": "v1", "kind": "List", "items": documented_rights(interest=False)}
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=json.dumps(rights))
        token = site.kubectl(kubectl, "create", "token", "cloudcore", "-n", "fairlead-system").stdout.strip()
        config = json.loads(admin.read_text())
        config["users"][0]["user"] = {"token": token}
        limited = tmp_path / "kubeconfig-cloudcore"
        limited.write_text(json.dumps(config))
        assert site.kubectl(kubectl, "auth", "whoami", "--kubeconfig", str(limited)).returncode == 0

        site.kubeconfig = limited
        site.start_cloud()
        site.join(NODE)
        site.start_edge(NODE)
        site.kubeconfig = admin
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE)
        site.until(lambda: site.ask("edgecore", NODE).get("devices"), "the device arrives")
        ready = ("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        site.until(lambda: site.kubectl(kubectl, *ready).stdout == "True", "the node is ready")
        status = ("get", "device", "thermo-1", "-o", "jsonpath={.status}")
        site.until(lambda: site.kubectl(kubectl, *status).stdout, "the device has a status")
        log = site.processes["cloud"].log.read_text()
        assert "orbidden" not in log, log
