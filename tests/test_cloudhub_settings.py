"""The configuration of cloudcore: what a file says is taken, and what it cannot mean is refused with its line."""

from pathlib import Path

import pytest

from cloudhub.placement import By
from cloudhub.settings import CloudConfig, SignedBy, load
from componentbase import config
from componentbase.config import ConfigError


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_default_is_printed_and_read_back() -> None:
    printed = config.dump(CloudConfig())
    assert ":10000" in printed
    assert config.parse(CloudConfig, printed, "printed") == CloudConfig() == load(None)


def test_placement_rules_are_configuration(tmp_path: Path) -> None:
    text = "placement:\n- {resource: policies.example.com, by: field, path: spec.node}\n"
    (rule,) = load(written(tmp_path / "c.yaml", text)).placement
    assert (rule.resource, rule.by, rule.path) == ("policies.example.com", By.FIELD, "spec.node")
    with pytest.raises(ConfigError, match=r"c\.yaml:2"):
        load(written(tmp_path / "c.yaml", "placement:\n- {resource: x, by: nearby}\n"))


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        ("{by: allNodes}", "a rule needs resource"),
        ("{resource: x, by: label}", "a rule by label needs path"),
        ("{resource: x, by: reference, path: a}", "a rule by reference needs referrer"),
        (
            "{resource: devices.devices.kubeedge.io, by: field, path: status.node}",
            "cloudcore does not follow changes of status.node of devices.devices.kubeedge.io: name a field of its spec",
        ),
        (
            "{resource: x, by: reference, path: status.x, referrer: devices.devices.kubeedge.io}",
            "does not follow changes of status.x of devices",
        ),
        ("{resource: x, by: field, path: metadata.resourceVersion}", "does not follow changes of metadata.resourceV"),
    ],
)
def test_a_rule_that_would_place_nothing_is_refused(rule: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=missing):
        load(written(tmp_path / "c.yaml", f"placement:\n- {rule}\n"))


def test_what_is_about_the_clusters_signer_goes_with_it(tmp_path: Path) -> None:
    for text in ("join: {approve: false}\n", "join: {clientCa: ca.crt}\n", "join: {signerName: a.b/c}\n"):
        with pytest.raises(ConfigError, match="say signer: kubernetes"):
            load(written(tmp_path / "c.yaml", text))
    settings = load(written(tmp_path / "c.yaml", "join: {signer: kubernetes, approve: false, clientCa: ca.crt}\n")).join
    assert (settings.signer, settings.approve) == (SignedBy.KUBERNETES, False)
    assert settings.client_ca == tmp_path / "ca.crt", "beside the file that names it"
    with pytest.raises(ConfigError, match="a signer's name is DOMAIN/NAME"):
        config.override(CloudConfig(), {"join.signer": SignedBy.KUBERNETES, "join.signer_name": "own"})
    with pytest.raises(ConfigError, match=r"join\.approve: .*--signer kubernetes"):
        config.override(CloudConfig(), {"join.signer": None, "join.approve": False})


def test_how_much_nodes_may_have_is_configuration(tmp_path: Path) -> None:
    text = "interest: {enabled: false, maxResources: 3, recheckSeconds: 60}\n"
    settings = load(written(tmp_path / "c.yaml", text)).interest
    assert (settings.enabled, settings.max_resources, settings.recheck_s) == (False, 3, 60)
    with pytest.raises(ConfigError, match="maxCalls"):
        load(written(tmp_path / "c.yaml", "interest: {maxCalls: 0}\n"))
