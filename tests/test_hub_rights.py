"""
A hub with the rights that `cloudcore rbac --no-interest` prints, and no others: a real apiserver refuses what is more.

The other tests of whole sites run their hubs with what it prints without that flag (tests.harness.site).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudhub.rbac import Wanted
from tests.conftest import need_tool
from tests.harness.rights import hub_kubeconfig
from tests.harness.site import ROOT, Site
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
        limited = hub_kubeconfig(site.kubeconfig, Wanted(interest=False))
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


@pytest.mark.timeout(120)
def test_the_documentation_leads_to_a_kubeconfig_with_these_rights_only(tmp_path: Path) -> None:
    """The commands of docs/operations.md, as they stand there, in a shell."""
    kubectl = need_tool("kubectl-current")
    [block] = re.findall(r"```sh\n(.umask.+?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    commands, made = tmp_path / "bin", tmp_path / "cloudcore.kubeconfig"
    commands.mkdir()
    (commands / "kubectl").symlink_to(kubectl)
    (commands / "cloudcore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cloudcore "$@"\n')
    (commands / "cloudcore").chmod(0o755)
    with Site(tmp_path) as site:
        environment = site.environment | {"KUBECONFIG": str(site.kubeconfig), "PYTHONPATH": str(ROOT)}
        environment["PATH"] = f"{commands}:{environment['PATH']}"
        shell = ["bash", "-e", "-o", "pipefail", "-c", block]
        done = subprocess.run(
            shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "system:serviceaccount:fairlead-system:cloudcore" in done.stdout
        assert made.stat().st_mode & 0o777 == 0o600
        assert json.loads(site.kubeconfig.read_text())["users"][0]["user"]["token"] not in made.read_text()
        where = ("--kubeconfig", str(made))
        assert site.kubectl(kubectl, "auth", "can-i", "list", "nodes", *where, check=False).stdout == "yes\n"
        assert site.kubectl(kubectl, "auth", "can-i", "delete", "nodes", *where, check=False).stdout == "no\n"
