"""
What a hub is whose configuration lets nodes have what is placed on them and nothing else: every interest is refused,
and every call is answered with 403.

Pure state: no clock, no I/O.
"""

from collections.abc import Sequence

from apimachinery.errors import Forbidden
from apimachinery.keys import Node
from cloudhub.interests import Decision
from cloudhub.passing import failure
from cloudhub.session import Session
from link.exchange import Whole
from link.frames import CallHead, Interest

REASON = "this hub serves nodes what is placed on them only: interest.enabled is false in its configuration"


class Closed:
    """Is a cloudhub.standings.Access and a cloudhub.session.CallSink."""

    def want(self, node: Node, interests: Sequence[Interest]) -> None: ...

    def decision(self, node: Node, interest: Interest) -> Decision:
        return Decision(Forbidden.code, REASON)

    def has_room(self, session: Session) -> bool:
        return True

    def begin(self, session: Session, call: Whole[CallHead]) -> None:
        session.answer(call.number, *failure(Forbidden(REASON)))

    def refuse(self, session: Session, number: int) -> None:
        raise AssertionError("there is room for what is refused at once")

    def cancel(self, session: Session, number: int) -> None: ...

    def session_closed(self, session: Session) -> None: ...
