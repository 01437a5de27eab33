"""The link's errors, named for what the caller can do."""

from link.errors import CallLost, LinkClosed, LinkError, LocalProtocolError, RemoteProtocolError
from link.frames import GoodbyeCode


def test_all_are_link_errors() -> None:
    for error in (LocalProtocolError("a"), RemoteProtocolError("b"), LinkClosed("c"), CallLost("d")):
        assert isinstance(error, LinkError)


def test_a_closed_link_says_why_and_when_to_come_back() -> None:
    closed = LinkClosed("stopping", GoodbyeCode.SHUTDOWN, 2.0)
    assert (str(closed), closed.code, closed.retry_after_s) == ("stopping", GoodbyeCode.SHUTDOWN, 2.0)
    assert LinkClosed("cut").code is None
