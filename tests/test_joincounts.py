"""What the join endpoint has answered, in numbers."""

from apimachinery.errors import AlreadyExists, Conflict
from cloudhub.joincounts import JoinCounts
from cloudhub.tokens import BadToken


def test_refusals_are_told_by_their_reason_and_begin_at_none() -> None:
    counts = JoinCounts()
    figures = {each.labels["reason"]: each.value for each in counts.metrics() if each.labels}
    assert set(figures.values()) == {0}
    for kind in (BadToken, BadToken, AlreadyExists, Conflict):
        counts.refuse(kind)
    counts.joined += 1
    assert counts.facts() == {
        "joined": 1,
        "renewed": 0,
        "waiting": 0,
        "refused": {"apiserver": 1, "bad-token": 2, "name-taken": 1},
    }
    found = {(each.name, each.labels.get("reason", "")): each.value for each in counts.metrics()}
    assert found["hub_joins_total", ""] == 1
    assert found["hub_joins_refused_total", "bad-token"] == 2
