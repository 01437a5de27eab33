"""Several workers told as one hub: nothing is lost, nothing told twice, and who is silent is named."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.statustext import told
from cloudhub.together import Worker, together
from tests.test_statustext import FACTS, WANTS_NOTHING


def facts(**changed: Any) -> dict[str, Any]:
    return {**FACTS, "nodes": [], "lastRefused": [], "resources": [], **changed}


def node(name: str, connected: bool, synced: bool = True) -> dict[str, Any]:
    remote = "192.0.2.1:5" if connected else ""
    fixed = {"dirty": 0, "refused": 0, **WANTS_NOTHING}
    return {"node": name, "connected": connected, "remote": remote, "transport": "", "synced": synced, **fixed}


def both(one: dict[str, Any] | None, two: dict[str, Any] | None) -> dict[str, Any]:
    return together("1", [Worker(1, 11, 1, one), Worker(2, 12, 3, two)])


def test_a_node_that_changed_workers_is_told_once_where_it_is() -> None:
    found = both(facts(nodes=[node("a", False), node("b", True)]), facts(nodes=[node("a", True), node("c", False)]))
    assert [(each["node"], each["worker"], each["connected"]) for each in found["nodes"]] == [
        ("a", 2, True),
        ("b", 1, True),
        ("c", 2, False),
    ]


node_lists = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.booleans(), st.booleans())).map(
    lambda known: [node(name, *state) for name, state in known.items()]
)


@given(node_lists, node_lists)
def test_every_node_is_there_once_and_connected_where_any_worker_says_so(
    one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    found = both(facts(nodes=one), facts(nodes=two))["nodes"]
    assert [each["node"] for each in found] == sorted({each["node"] for each in [*one, *two]})
    wanted = {each["node"] for each in [*one, *two] if each["connected"]}
    assert {each["node"] for each in found if each["connected"]} == wanted


def test_counts_are_added_and_the_cache_is_everybodys_own() -> None:
    found = both(
        facts(objects=5, reports={"reports_taken": 5, "reports_refused": 7, "writes": 1}, calls={"200": 2}),
        facts(objects=6, reports={"reports_taken": 1, "reports_refused": 0}, calls={"200": 1, "403": 1}),
    )
    assert found["objects"] == 6
    assert found["reports"] == {"reports_taken": 6, "reports_refused": 7, "writes": 1}
    assert found["calls"] == {"200": 3, "403": 1}
    refused = {"bad-token": 8, "name-taken": 2}
    assert found["joins"] == {"joined": 6, "renewed": 4, "waiting": 18, "refused": refused}


def test_a_resource_is_told_as_the_worker_has_it_that_has_trouble() -> None:
    fine = {**FACTS["resources"][0], "lists": 1, "watches": 2}
    bad = {**fine, "phase": "failing", "problem": "no answer", "lists": 4}
    for pair in ((fine, bad), (bad, fine)):
        (found,) = both(*(facts(resources=[each]) for each in pair))["resources"]
        assert found == {**bad, "lists": 5, "watches": 4}


def test_the_last_refusals_of_all_come_last() -> None:
    refused = both(facts(lastRefused=["a1", "a2", "a3"]), facts(lastRefused=["b1", "b2"]))["lastRefused"]
    assert sorted(refused) == ["a1", "a2", "a3", "b1", "b2"]
    assert sorted(refused[-2:]) == ["a3", "b2"]


def test_a_worker_that_does_not_answer_is_named_and_hides_nothing() -> None:
    found = both(None, facts(nodes=[node("a", True)], problem="waiting"))
    assert found["problem"] == "worker 2: waiting; worker 1 does not answer"
    assert found["link"] == ":10000"
    lines = told(found)
    assert "workers    1: not serving; 2: 1 node, started 3 times" in lines
    assert lines[-1].endswith("192.0.2.1:5 at worker 2, in sync")
    assert told(both(None, None))[2] == "link       not listening: the apiserver is not fully known yet"


def test_a_pair_is_told_once_however_many_workers_it_comes_to() -> None:
    one = {"node": "a", "times": 2, "since": "t2", "last": "t3", "addresses": ["192.0.2.1", "192.0.2.9"]}
    two = {"node": "a", "times": 1, "since": "t1", "last": "t1", "addresses": ["192.0.2.9", "192.0.2.8"]}
    ban = {"node": "b", "since": "t0", "reason": ""}
    found = both(facts(clones=[one], banned=[ban]), facts(clones=[two], banned=[ban]))
    addresses = ["192.0.2.1", "192.0.2.9", "192.0.2.8"]
    assert found["clones"] == [{"node": "a", "times": 3, "since": "t1", "last": "t3", "addresses": addresses}]
    assert found["banned"] == [ban]
