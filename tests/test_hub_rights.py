"""
A hub with the rights that `cloudcore rbac --no-interest` prints, and no others: a real apiserver refuses what is more.

The other tests of whole sites run their hubs with what it prints without that flag (tests.harness.site).
"""

from pathlib import Path

import pytest

from tests.conftest import need_tool
from tests.harness.rights import hub_kubeconfig
from tests.harness.site import Site
from tests.test_end_to_end import DEVICE, MODEL, NODE


@pytest.mark.timeout(120)
def test_a_hub_works_with_the_rights_that_are_printed(tmp_path: Path) -> None:
    kubectl = need_tool("kubectl-current")
    with Site(tmp_path) as site:
        site.apply_crds(kubectl)
        # Where cloudcore was there first, it has made its namespace: nothing to warn of, and nothing to change.
        site.run("cloudcore", "token", "create", "--kubeconfig", str(site.kubeconfig))
        rights = site.run("cloudcore", "rbac", "--no-interest").stdout
        applied = site.kubectl(kubectl, "apply", "-f", "-", stdin=rights)
        assert "namespace/fairlead-system unchanged" in applied.stdout
        assert "Warning" not in applied.stderr
        limited = hub_kubeconfig(site.kubeconfig, interest=False)
        assert site.kubectl(kubectl, "auth", "whoami", "--kubeconfig", str(limited)).returncode == 0
        site.start_cloud(flags=("--kubeconfig", str(limited)))
        site.join(NODE)
        site.start_edge(NODE)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE)
        site.until(lambda: site.ask("edgecore", NODE).get("devices"), "the device arrives")
        ready = ("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        site.until(lambda: site.kubectl(kubectl, *ready).stdout == "True", "the node is ready")
        status = ("get", "device", "thermo-1", "-o", "jsonpath={.status}")
        site.until(lambda: site.kubectl(kubectl, *status).stdout, "the device has a status")
        log = site.processes["cloud"].log.read_text()
        assert "orbidden" not in log, log
        printed = site.run("cloudcore", "rbac", "--nodes", NODE, "--namespaces", "default").stdout
        assert "created" in site.kubectl(kubectl, "apply", "--dry-run=client", "-f", "-", stdin=printed).stdout
