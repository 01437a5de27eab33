"""A node's interests: who decides knows them while they stand, and its connection is told what is news."""

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node
from apimachinery.objects import from_json
from apimachinery.watchcache import WatchCache
from cloudhub.interests import Interests
from cloudhub.standings import Standings
from link.frames import Granted, RefusedInterest
from tests.harness.hubsite import ALL, MAY, MAY_NOT, NAMED, POLICIES, Rights

NODE = Node("n1")


class Bench:
    def __init__(self) -> None:
        self.cache, self.rights, self.interests = WatchCache(), Rights(), Interests()
        self.standings = Standings(self.cache, self.interests, self.rights)


def test_a_connection_is_told_what_is_news_to_it() -> None:
    bench = Bench()
    bench.rights.decisions |= {ALL: MAY, NAMED: MAY_NOT}
    bench.standings.greet(NODE, ())
    assert not bench.standings.tell(NODE, bench.standings.judge(NODE, ())[1]), "it has asked for nothing"
    bench.standings.change(NODE, 1, (ALL, NAMED))
    granted = bench.standings.judge(NODE, ())[1]
    assert granted == Granted(1, (RefusedInterest(NAMED, 403, "no"),), (POLICIES,))
    assert [bench.standings.tell(NODE, granted) for _ in range(2)] == [True, False]
    bench.standings.greet(NODE, (ALL, NAMED))
    assert bench.standings.tell(NODE, bench.standings.judge(NODE, ())[1]), "another connection has not heard it"


def test_what_a_decision_affects_is_what_there_is_and_what_is_held() -> None:
    bench = Bench()
    policy = from_json(POLICIES, {"metadata": {"name": "a", "namespace": "default", "uid": "a"}})
    bench.cache.apply(WatchEvent(EventType.ADDED, policy, "1"))
    bench.rights.decisions[ALL] = MAY
    bench.standings.greet(NODE, (ALL,))
    gone = policy.key._replace(name="gone")
    marked, _ = bench.standings.judge(NODE, [gone])
    assert {policy.key, gone} <= set(marked)
    assert bench.interests.covers(NODE, policy.key)
    assert bench.standings.judge(NODE, [gone])[0] == [], "nothing is otherwise than before"


def test_who_decides_knows_of_interests_until_they_are_forgotten() -> None:
    bench = Bench()
    bench.standings.greet(NODE, (ALL,))
    assert bench.rights.wanted == {NODE: (ALL,)}
    assert bench.standings.is_pending(NODE, ALL)
    bench.standings.judge(NODE, ())
    assert bench.interests.is_unknown(NODE)
    bench.standings.forget(NODE)
    bench.standings.forget(NODE)
    assert (NODE in bench.standings, bench.rights.wanted) == (False, {NODE: ()})
    assert not bench.interests.is_unknown(NODE)
