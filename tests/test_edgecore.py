"""The edge's commands that need no cloud: configuration, status lines, clear refusals. The rest: test_end_to_end.py."""

import sys
import time
from pathlib import Path
from typing import cast

import pytest

import edgecore
from componentbase import config
from componentbase.endpoints import Endpoint
from devicetwin.service import TwinService
from edgecore import CloudConfig, EdgeConfig
from edgehub.connector import LinkStatus
from metamanager.store import Store
from tests.harness.logs import logging_restored

FACTS = {
    "node": "edge-1",
    "version": "1",
    "hub": "hub:10000",
    "connected": True,
    "inSync": True,
    "problem": "",
    "lastSyncedAtMs": 1,
    "objects": 8,
    "secretsLost": 0,
    "reportsWaiting": 0,
    "reportsRefused": 0,
    "lastRefused": [],
    "eventsWaiting": 0,
    "eventsDropped": 0,
    "interests": 0,
    "writesWaiting": 0,
    "api": "http://127.0.0.1:10550",
    "mqtt": "mqtt://127.0.0.1:1883",
    "mqttConnected": True,
    "mqttProblem": "",
    "mqttIgnored": 0,
    "mqttDenied": 0,
    "mqttLoginsRefused": 0,
    "mqttMissed": 0,
    "devicesContested": 0,
    "contested": [],
    "devices": 2,
    "openWishes": 1,
    "storeProblem": "",
}


def run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, logging_restored():
        patch.setattr(sys, "argv", ["edgecore", *arguments])
        with pytest.raises(SystemExit) as ended:
            edgecore.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_what_join_writes_is_read_back(tmp_path: Path) -> None:
    written = EdgeConfig(node="edge-1", cloud=CloudConfig(link=Endpoint("hub.example", 10000)))
    (tmp_path / "edgecore.yaml").write_text(config.dump(written))
    read = edgecore._load(tmp_path / "edgecore.yaml")
    assert read.node == "edge-1"
    assert read.cloud.link == Endpoint("hub.example", 10000)
    assert read.cloud.key == tmp_path / "pki/edge.key"


def test_config_prints_every_default_and_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config") == 0
    printed = capsys.readouterr().out
    assert "broker: embedded" in printed
    assert "listen: 127.0.0.1:10550" in printed
    assert config.parse(EdgeConfig, printed, "printed") == EdgeConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("node: n\nmqqt: {}\n", 'edgecore.yaml:2: unknown key "mqqt", did you mean "mqtt"?'),
        ("node: n\n", "cloud.link is missing"),
        ("cloud: {link: 'hub:1'}\n", "node is missing"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edgecore.yaml").write_text(text)
    assert run("run", "--data-dir", str(tmp_path)) == 1
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_a_directory_nobody_joined_in_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--data-dir", str(tmp_path)) == 1
    assert "run `edgecore join` first" in capsys.readouterr().err.splitlines()[-1]
    assert run("status", "--data-dir", str(tmp_path)) == 1
    assert "is not running" in capsys.readouterr().err.splitlines()[-1]


def test_status_in_words() -> None:
    lines = edgecore._told(FACTS)
    assert lines[1:3] == ["link     connected to hub:10000, in sync", "store    8 objects, up to date"]
    away = FACTS | {"connected": False, "inSync": False, "problem": "cannot connect", "storeProblem": "disk full"}
    lines = edgecore._told(away)
    assert lines[1] == "link     not connected to hub:10000 (cannot connect)"
    assert "as of" in lines[2]
    assert lines[-1] == "problem  disk full"
    refused = {"key": "devices/default/lamp", "field": "state", "reason": "no right", "at_ms": 1}
    lines = edgecore._told(FACTS | {"reportsRefused": 7, "lastRefused": [refused], "eventsDropped": 3})
    assert lines[3] == "reports  0 waiting, 7 refused by the cloud"
    assert lines[-2] == "events   0 waiting, 3 dropped for later ones"
    assert lines[-1].startswith("refused  devices/default/lamp state, ")
    assert lines[-1].endswith(" s ago: no right")
    lines = edgecore._told(FACTS | {"interests": 2, "writesWaiting": 1})
    assert lines[-1] == "clients  read 2 selections of the cluster, 1 writes wait to go up"
    odd = FACTS | {"mqttMissed": 3, "devicesContested": 3, "contested": ["default/pump: modbus-1, modbus-2"]}
    lines = edgecore._told(odd)
    assert lines[4].endswith("3 numbered updates never came")
    assert lines[-2:] == [
        "contest  default/pump: modbus-1, modbus-2 (several mappers claim it, the last word counts)",
        "contest  and 2 more",
    ]
    never = edgecore._told(away | {"lastSyncedAtMs": None, "mqttConnected": False, "mqttProblem": "refused"})
    assert "never was in sync" in never[2]
    assert never[4] == "mqtt     mqtt://127.0.0.1:1883 not connected (refused)"


async def test_what_is_in_sync_counts_from_when_the_hub_was_heard_last(tmp_path: Path) -> None:
    store, link = await Store.open(tmp_path / "edge.db"), LinkStatus()
    status = edgecore.NodeStatus(edgecore.EdgeConfig(), store, link, cast(TwinService, None), lambda: False)
    silent = 1.0
    link.silent_s = lambda: silent

    def stale_s() -> float | None:
        state = status.link_state()
        assert state.left_sync_at_ms is None or not state.in_sync
        return None if state.left_sync_at_ms is None else time.time() - state.left_sync_at_ms / 1000

    link.synced = True
    await status._look()
    assert stale_s() is None
    silent = 40.0
    assert stale_s() == pytest.approx(40, abs=1), "it hangs, and its link is not given up yet"
    link.synced = False
    assert stale_s() == pytest.approx(40, abs=1), "nobody has looked since the link was lost"
    await status._look()
    assert stale_s() == pytest.approx(40, abs=1)
    synced_at_ms = await store.last_synced_at_ms()
    assert synced_at_ms is None, "there never was a complete sync, so there is nothing to note"
    await store.close()
