"""The configuration of an edge node, as a file has it."""

import dataclasses
from pathlib import Path

from componentbase import config
from componentbase.endpoints import Endpoint
from edgecore.settings import CloudConfig, EdgeConfig, are_joined, join_endpoint, load


def test_what_join_writes_is_read_back(tmp_path: Path) -> None:
    written = EdgeConfig(node="edge-1", cloud=CloudConfig(link=Endpoint("hub.example", 10000)))
    (tmp_path / "edgecore.yaml").write_text(config.dump(written))
    read = load(tmp_path / "edgecore.yaml")
    assert read.node == "edge-1"
    assert read.cloud.link == Endpoint("hub.example", 10000)
    assert read.cloud.key == tmp_path / "pki/edge.key"


def test_certificates_that_are_somebody_elses_are_not_renewed(tmp_path: Path) -> None:
    (tmp_path / "edgecore.yaml").write_text("node: edge-1\ncloud: {link: 'hub:10000', join: 'hub.example:10002'}\n")
    joined = load(tmp_path / "edgecore.yaml").cloud
    assert are_joined(joined, tmp_path)
    assert join_endpoint(joined) == Endpoint("hub.example", 10002)
    assert not are_joined(dataclasses.replace(joined, key=tmp_path / "other.key"), tmp_path)
    older = dataclasses.replace(joined, join=Endpoint("", 10002))
    assert join_endpoint(older) == Endpoint("hub", 10002), "of who joined before it was written down"
