"""A hub that serves what is placed and nothing else."""

import json

from apimachinery.keys import Node
from apimachinery.resources import PODS
from cloudhub.closed import REASON, Closed
from cloudhub.interests import Decision
from link.frames import Answer, Call, CallHead, Cancel, Interest
from tests.harness.hubsite import Site


def test_everything_is_refused_and_says_why() -> None:
    closed = Closed()
    closed.want(Node("n1"), (Interest(PODS),))
    assert closed.decision(Node("n1"), Interest(PODS)) == Decision(403, REASON)


def test_a_call_is_answered_at_once() -> None:
    site = Site()
    site.hub.calls = Closed()
    wire = site.streaming("n1")
    wire.take()
    wire.say(Call(3, CallHead("GET", "/version"), b"", False))
    wire.say(Cancel(3))
    wire.say(Call(4, CallHead("GET", "/version"), b"", True))
    *_, answer = wire.take()
    assert isinstance(answer, Answer)
    assert answer.head is not None
    assert (answer.number, answer.head.status, json.loads(answer.body)["message"]) == (4, 403, REASON)
    wire.pump.connection_lost("cut")
