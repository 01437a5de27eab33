"""Tests for cloudhub.presence."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apimachinery.keys import Node
from cloudhub.presence import Duty, Presence, Task

EDGE = Node("edge-1")


def duties(presence: Presence, now: float) -> list[Duty]:
    """Do everything that is due, successfully, until nothing is."""
    done = []
    while tasks := presence.due(now, 8):
        for task in tasks:
            done.append(task.duty)
            presence.finished(task, now, None, 0.5)
    return done


def test_a_new_node_is_registered_then_ready_then_its_lease_is_renewed() -> None:
    presence = Presence()
    presence.connected(EDGE, 0.0)
    assert duties(presence, 0.0) == [Duty.REGISTER, Duty.RENEW, Duty.READY]
    assert presence.next_deadline() == 10.0


def test_a_node_that_is_as_it_should_be_costs_only_its_lease() -> None:
    presence = Presence()
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 1.0)
    assert duties(presence, 1.0) == [Duty.RENEW]
    assert duties(presence, 10.9) == []
    assert duties(presence, 11.0) == [Duty.RENEW]


def test_renewals_are_spread() -> None:
    presence = Presence(renew_s=10.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 0.0)
    for jitter, expected in ((0.0, 9.0), (0.5, 19.0)):
        at = presence.next_deadline() or 0.0
        (task,) = presence.due(at, 8)
        presence.finished(task, at, None, jitter)
        assert presence.next_deadline() == expected


def test_a_node_nobody_hears_of_is_given_up_after_the_grace_period() -> None:
    presence = Presence(grace_s=20.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    assert presence.next_deadline() == 20.0
    assert duties(presence, 19.9) == []
    assert duties(presence, 20.0) == [Duty.GIVE_UP]
    assert presence.next_deadline() is None


def test_an_answer_that_takes_long_does_not_put_the_next_renewal_off() -> None:
    presence = Presence(renew_s=10.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 0.0)
    (renewal,) = presence.due(0.0, 8)
    presence.finished(renewal, 4.0, None, 0.5)
    assert presence.next_deadline() == 10.0
    (renewal,) = presence.due(10.0, 8)
    presence.finished(renewal, 60.0, None, 0.5)
    assert presence.next_deadline() == 65.0, "none is made up for"


def test_another_replica_that_renews_the_lease_keeps_the_node() -> None:
    presence = Presence(grace_s=20.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    for now in range(0, 100, 10):
        presence.lease_seen(EDGE, f"v{now}", float(now))
        assert duties(presence, float(now)) == []
    assert duties(presence, 109.9) == []
    assert duties(presence, 110.0) == [Duty.GIVE_UP]


def test_a_lease_that_is_seen_again_unchanged_proves_nothing() -> None:
    presence = Presence(grace_s=20.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.lease_seen(EDGE, "v1", 5.0)
    presence.lease_seen(EDGE, "v1", 24.0)  # as after a relist
    assert duties(presence, 25.0) == [Duty.GIVE_UP]


def test_the_grace_period_starts_when_the_session_ends() -> None:
    presence = Presence(grace_s=20.0)
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 0.0)
    duties(presence, 0.0)
    presence.disconnected(EDGE, 500.0)
    assert duties(presence, 519.9) == []
    assert duties(presence, 520.0) == [Duty.GIVE_UP]


def test_nodes_that_are_no_edge_nodes_are_left_alone() -> None:
    presence = Presence()
    presence.node_seen(Node("master"), False, "True", 0.0)
    assert presence.next_deadline() is None
    assert duties(presence, 1e9) == []


def test_a_node_that_is_unknown_already_is_left_alone() -> None:
    presence = Presence()
    presence.node_seen(EDGE, True, "Unknown", 0.0)
    assert duties(presence, 1e9) == []


def test_a_connected_node_that_somebody_else_gave_up_is_ready_again() -> None:
    presence = Presence()
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 0.0)
    duties(presence, 0.0)
    presence.node_seen(EDGE, True, "Unknown", 3.0)
    assert duties(presence, 3.0) == [Duty.READY]


def test_a_deleted_node_is_not_made_again_before_its_next_session() -> None:
    presence = Presence()
    presence.connected(EDGE, 0.0)
    duties(presence, 0.0)
    presence.node_gone(EDGE)
    assert duties(presence, 100.0) == []
    presence.disconnected(EDGE, 101.0)
    assert len(presence) == 0
    presence.connected(EDGE, 102.0)
    assert duties(presence, 102.0) == [Duty.REGISTER, Duty.RENEW, Duty.READY]


def test_a_failed_duty_waits_and_counts() -> None:
    presence = Presence()
    presence.connected(EDGE, 0.0)
    (task,) = presence.due(0.0, 8)
    presence.finished(task, 0.0, 2.5, 0.5)
    assert presence.next_deadline() == 2.5
    assert presence.due(2.4, 8) == []
    assert presence.due(2.5, 8) == [Task(EDGE, Duty.REGISTER, 1)]


def test_a_node_is_not_dealt_with_twice_at_once() -> None:
    presence = Presence()
    presence.connected(EDGE, 0.0)
    (task,) = presence.due(0.0, 8)
    presence.node_seen(EDGE, True, "False", 0.1)
    presence.disconnected(EDGE, 0.2)
    presence.connected(EDGE, 0.3)
    assert presence.due(99.0, 8) == []
    presence.finished(task, 1.0, None, 0.5)
    assert duties(presence, 1.0) == [Duty.RENEW, Duty.READY]


def test_a_newer_session_has_the_lease_taken_though_it_was_just_renewed() -> None:
    presence = Presence()
    presence.node_seen(EDGE, True, "True", 0.0)
    presence.connected(EDGE, 0.0)
    (task,) = presence.due(0.0, 8)
    presence.connected(EDGE, 0.1)  # while the Lease is being renewed for the older one
    presence.finished(task, 0.2, None, 0.5)
    assert duties(presence, 0.2) == [Duty.RENEW]


def test_a_lease_that_cannot_be_had_does_not_keep_a_node_from_being_ready() -> None:
    presence = Presence()
    presence.node_seen(EDGE, True, "False", 0.0)
    presence.connected(EDGE, 0.0)
    (task,) = presence.due(0.0, 8)
    assert task.duty is Duty.RENEW
    presence.finished(task, 0.0, 1.0, 0.5)
    assert duties(presence, 1.0) == [Duty.READY, Duty.RENEW]


def test_no_more_than_asked_for() -> None:
    presence = Presence()
    for number in range(5):
        presence.connected(Node(f"n{number}"), 0.0)
    assert [len(presence.due(0.0, 3)), len(presence.due(0.0, 3))] == [3, 2]


NODES = st.sampled_from([Node("a"), Node("b")])


class PresenceMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: once quiet, every node is told as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.presence = Presence(renew_s=10.0, grace_s=20.0)
        self.up: dict[Node, bool] = {}
        self.cluster: dict[Node, str] = {}
        """Ready, by Node that exists."""
        self.running: list[Task] = []

    @rule(node=NODES)
    def connect(self, node: Node) -> None:
        self.up[node] = True
        self.presence.connected(node, self.now)

    @rule(node=NODES)
    def disconnect(self, node: Node) -> None:
        self.up[node] = False
        self.presence.disconnected(node, self.now)

    @rule(node=NODES, ready=st.sampled_from(["", "True", "False", "Unknown"]))
    def somebody_writes(self, node: Node, ready: str) -> None:
        self.cluster[node] = ready
        self.presence.node_seen(node, True, ready, self.now)

    @rule(node=NODES)
    def somebody_deletes(self, node: Node) -> None:
        self.cluster.pop(node, None)
        self.presence.node_gone(node)

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.integers(1, 3))
    def start(self, most: int) -> None:
        self.running += self.presence.due(self.now, most)

    @rule(failed=st.booleans())
    def finish(self, failed: bool) -> None:
        if self.running:
            self.perform(self.running.pop(0), failed)

    def perform(self, task: Task, failed: bool) -> None:
        if not failed:
            if task.duty is Duty.REGISTER:
                self.cluster.setdefault(task.node, "")
            elif task.duty is Duty.READY and task.node in self.cluster:
                self.cluster[task.node] = "True"
            elif task.duty is Duty.GIVE_UP and task.node in self.cluster:
                self.cluster[task.node] = "Unknown"
        self.presence.finished(task, self.now, 1.0 if failed else None, 0.5)
        if task.node in self.cluster:  # the watch's echo
            self.presence.node_seen(task.node, True, self.cluster[task.node], self.now)
        else:
            self.presence.node_gone(task.node)

    @invariant()
    def one_at_a_time(self) -> None:
        assert len({task.node for task in self.running}) == len(self.running)

    def teardown(self) -> None:
        for task in self.running:
            self.perform(task, False)
        for _ in range(6):
            self.now += 21.0
            while tasks := self.presence.due(self.now, 8):
                for task in tasks:
                    self.perform(task, False)
        for node, ready in self.cluster.items():
            assert ready == ("True" if self.up.get(node) else "Unknown"), node


TestPresenceMachine = PresenceMachine.TestCase
TestPresenceMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
