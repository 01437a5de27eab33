"""What `edgecore status` prints."""

from edgecore.statustext import told

FACTS = {
    "node": "edge-1",
    "version": "1",
    "hub": "hub:10000",
    "connected": True,
    "transport": "websocket",
    "inSync": True,
    "problem": "",
    "certificateUntil": "2027-11-26T09:00:00Z",
    "certificateProblem": "",
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


def test_status_in_words() -> None:
    lines = told(FACTS)
    assert lines[1:3] == ["link     connected to hub:10000, in sync", "store    8 objects, up to date"]
    away = FACTS | {"connected": False, "inSync": False, "problem": "cannot connect", "storeProblem": "disk full"}
    lines = told(away)
    assert lines[1] == "link     not connected to hub:10000 (cannot connect)"
    assert "as of" in lines[2]
    assert lines[-1] == "problem  disk full"
    refused = {"key": "devices/default/lamp", "field": "state", "reason": "no right", "at_ms": 1}
    lines = told(FACTS | {"reportsRefused": 7, "lastRefused": [refused], "eventsDropped": 3})
    assert lines[3] == "reports  0 waiting, 7 refused by the cloud"
    assert lines[-2] == "events   0 waiting, 3 dropped for later ones"
    assert lines[-1].startswith("refused  devices/default/lamp state, ")
    assert lines[-1].endswith(" s ago: no right")
    lines = told(FACTS | {"certificateProblem": "it refused: no"})
    assert lines[-1] == "problem  the certificate (until 2027-11-26T09:00:00Z) is not renewed: it refused: no"
    lines = told(FACTS | {"interests": 2, "writesWaiting": 1})
    assert lines[-1] == "clients  read 2 selections of the cluster, 1 writes wait to go up"
    odd = FACTS | {"mqttMissed": 3, "devicesContested": 3, "contested": ["default/pump: modbus-1, modbus-2"]}
    lines = told(odd)
    assert lines[4].endswith("3 numbered updates never came")
    assert lines[-2:] == [
        "contest  default/pump: modbus-1, modbus-2 (several mappers claim it, the last word counts)",
        "contest  and 2 more",
    ]
    never = told(away | {"lastSyncedAtMs": None, "mqttConnected": False, "mqttProblem": "refused"})
    assert "never was in sync" in never[2]
    assert never[4] == "mqtt     mqtt://127.0.0.1:1883 not connected (refused)"
