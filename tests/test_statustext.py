"""`cloudcore status` in words."""

from typing import Any

from cloudhub.statustext import told

WANTS_NOTHING = {"interests": 0, "interests_refused": 0}
FACTS: dict[str, Any] = {
    "version": "1",
    "apiserver": "https://api",
    "problem": "",
    "link": ":10000",
    "quic": "",
    "join": "https://:10002",
    "signer": "",
    "objects": 5,
    "resources": [
        {
            "resource": "pods",
            "phase": "watching",
            "synced": True,
            "problem": "",
            "lists": 1,
            "watches": 1,
            "asked": False,
        },
        {
            "resource": "devices",
            "phase": "absent",
            "synced": True,
            "problem": "not defined",
            "lists": 1,
            "watches": 0,
            "asked": False,
        },
    ],
    "calls": {},
    "joins": {"joined": 3, "renewed": 2, "waiting": 9, "refused": {"bad-token": 4, "name-taken": 1}},
    "reports": {"reports_taken": 5, "reports_refused": 7},
    "lastRefused": [
        {"node": "edge-1", "key": "devices/default/d", "field": "property/p", "reason": f"no {number}"}
        for number in range(7)
    ],
    "banned": [],
    "clones": [],
    "nodes": [
        {
            "node": "a",
            "connected": True,
            "remote": "192.0.2.1:5",
            "transport": "websocket",
            "synced": True,
            "dirty": 0,
            "refused": 0,
            **WANTS_NOTHING,
        },
        {
            "node": "b",
            "connected": True,
            "remote": "192.0.2.2:5",
            "transport": "quic",
            "synced": False,
            "dirty": 7,
            "refused": 1,
            **WANTS_NOTHING,
        },
        {
            "node": "c",
            "connected": False,
            "remote": "",
            "transport": "",
            "synced": False,
            "dirty": 0,
            "refused": 0,
            **WANTS_NOTHING,
        },
    ],
}


def test_status_in_words() -> None:
    lines = told(FACTS)
    assert lines[1] == "apiserver  https://api, 5 objects of 2 resources"
    assert lines[4] == "joins      3 joined, 2 renewed, 5 refused (4 bad-token, 1 name-taken)"
    assert lines[5] == "reports    5 taken, 7 refused"
    assert lines[6] == "problem    devices: absent not defined"
    # The newest first, and no more than a few.
    assert [line.rpartition(": ")[2] for line in lines[7:12]] == ["no 6", "no 5", "no 4", "no 3", "no 2"]
    assert lines[7] == "refused    devices/default/d property/p of edge-1: no 6"
    assert lines[12] == "nodes      2 connected, 1 in sync"
    assert [line.split(None, 1)[1] for line in lines[13:]] == [
        "192.0.2.1:5, in sync",
        "192.0.2.2:5 over quic, 7 to send, refused 1 object",
        "away",
    ]


def test_where_the_hub_listens_for_quic_is_a_line_where_it_does() -> None:
    assert "quic       127.0.0.1:10001" in told({**FACTS, "quic": "127.0.0.1:10001"})


def test_who_signs_nodes_is_a_line_where_it_is_the_cluster() -> None:
    assert "signer     kubernetes (example.com/own)" in told({**FACTS, "signer": "kubernetes (example.com/own)"})


def test_what_a_node_says_does_not_steer_the_terminal() -> None:
    stranger = {"node": "edge-1", "key": "devices/default/d", "field": "a\x1b[2J\nnodes", "reason": "no"}
    line = told({**FACTS, "lastRefused": [stranger]})[7]
    assert line == "refused    devices/default/d a\\x1b[2J\\nnodes of edge-1: no"


def test_what_nodes_are_interested_in_and_ask_for_is_two_lines() -> None:
    nodes = [{**FACTS["nodes"][0], "interests": 4, "interests_refused": 1}]
    asked = {"phase": "watching", "synced": True, "problem": "", "lists": 1, "watches": 1, "asked": True}
    resources = [*FACTS["resources"], {**asked, "resource": "widgets.example.com"}]
    lines = told({**FACTS, "nodes": nodes, "resources": resources, "calls": {"200": 3, "403": 1}})
    assert lines[6:8] == [
        "interest   4 selections, 1 not granted; watched for nodes: widgets.example.com",
        "calls      3 x 200, 1 x 403",
    ]


def test_who_is_banned_and_whose_certificate_is_used_twice_is_a_line_each() -> None:
    banned = [
        {"node": "lost", "since": "2030-01-31", "reason": "stolen\x1b[2J"},
        {"node": "x", "since": "", "reason": ""},
    ]
    clone = {"node": "a", "times": 3, "since": "s", "last": "l", "addresses": ["192.0.2.1", "192.0.2.9"]}
    lines = told({**FACTS, "lastRefused": [], "nodes": [], "banned": banned, "clones": [clone]})[7:]
    assert lines == [
        "banned     lost since 2030-01-31: stolen\\x1b[2J",
        "banned     x",
        "cloned     a: its certificate is used from two places (192.0.2.1, 192.0.2.9), seen 3 times, last at l",
        "nodes      0 connected, 0 in sync",
    ]
