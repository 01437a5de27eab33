"""What `cloudcore rbac` prints."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudhub import rbac
from cloudhub.rbac import Wanted
from tests.house import ROOT
from tests.test_cloudcore import run


def objects_of(wanted: Wanted) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rbac.text(wanted)))


def rules(wanted: Wanted, name: str) -> list[dict[str, Any]]:
    [role] = [each for each in objects_of(wanted) if each["metadata"]["name"] == name and each["kind"] == "ClusterRole"]
    return list(role["rules"])


def test_the_documentation_shows_what_is_printed() -> None:
    assert f"```yaml\n{rbac.text(Wanted())}```" in (ROOT / "docs" / "operations.md").read_text()


def test_every_role_is_bound_to_the_account() -> None:
    for wanted in (Wanted(), Wanted(interest=False), Wanted(namespaces=("a", "b")), Wanted(signer="a.example/b")):
        objects = objects_of(wanted)
        roles = {(each["kind"], each["metadata"]["name"]) for each in objects if each["kind"].endswith("Role")}
        bindings = [each for each in objects if each["kind"].endswith("Binding")]
        assert {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings} == roles
        account = {"kind": "ServiceAccount", "name": "cloudcore", "namespace": "fairlead-system"}
        assert all(each["subjects"] == [account] for each in bindings)


def test_without_interest_nothing_is_read_at_large_and_nobody_impersonated() -> None:
    text = rbac.text(Wanted(interest=False))
    assert '"*"' not in text
    assert "impersonate" not in text


def test_a_hub_of_which_the_cluster_signs_nodes_may_ask_and_approve_what_it_asked() -> None:
    assert "certificates.k8s.io" not in rbac.text(Wanted())
    found = {verb: each for each in rules(Wanted(signer="a.example/b"), rbac.SIGNER) for verb in each["verbs"]}
    assert set(found) == {"get", "create", "update", "approve"}
    assert (found["approve"]["resources"], found["approve"]["resourceNames"]) == (["signers"], ["a.example/b"])
    only_asks = rules(Wanted(signer="a.example/b", approves=False), rbac.SIGNER)
    assert [each["verbs"] for each in only_asks] == [["get", "create"]]


def test_the_command_prints_them_for_a_flag_or_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cloudcore.yaml"
    file.write_text("join: {signer: kubernetes, signerName: a.example/b}\n")
    assert run("rbac", "--config", str(file)) == 0
    by_file = capsys.readouterr().out
    assert run("rbac", "--signer", "kubernetes", "--signer-name", "a.example/b") == 0
    assert capsys.readouterr().out == by_file == rbac.text(Wanted(signer="a.example/b"))
    assert run("rbac", "--signer", "kubernetes", "--no-approve") == 0
    assert "approval" not in capsys.readouterr().out


def test_requests_can_be_narrowed_to_nodes_and_namespaces() -> None:
    wanted = Wanted(nodes=("e1",), namespaces=("a", "no"))
    [users] = [each for each in rules(wanted, rbac.INTEREST) if each["resources"] == ["users"]]
    assert users["resourceNames"] == ["system:node:e1"]
    assert not [each for each in rules(wanted, rbac.INTEREST) if "serviceaccounts" in each["resources"]]
    bound = [each for each in objects_of(wanted) if each.get("roleRef", {}).get("name") == rbac.CALLERS]
    assert [(each["kind"], each["metadata"]["namespace"]) for each in bound] == [
        ("RoleBinding", "a"),
        ("RoleBinding", "no"),
    ], "and YAML has no false"


def test_what_a_configuration_places_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cloudcore.yaml"
    file.write_text("interest: {enabled: false}\nplacement:\n- {resource: policies.example.com, by: allNodes}\n")
    assert run("rbac", "--config", str(file)) == 0
    printed = capsys.readouterr().out
    assert printed == rbac.text(Wanted(interest=False, placed=("policies.example.com",)))
    assert "- {apiGroups: [example.com], resources: [policies], verbs: [list, watch]}" in printed
    assert run("rbac", "--config", str(file), "--nodes", "a") == 1
    assert "need interest" in capsys.readouterr().err
    assert run("rbac", "--namespaces", "a,}") == 2
    assert "write NAME,NAME" in capsys.readouterr().err
