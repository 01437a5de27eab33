"""
Errors of the link, named for what the caller can do.

    LinkError
    ├── LocalProtocolError    fix your code: this side asked for what the protocol does not allow
    ├── RemoteProtocolError   drop the peer: it sent what the protocol does not allow
    ├── LinkClosed            dial again
    └── CallLost              look whether it was done, then ask again
"""

from link.frames import GoodbyeCode


class LinkError(Exception):
    """Any failure of a link."""


class LocalProtocolError(LinkError):
    """This side asked for something the protocol does not allow in this state."""


class RemoteProtocolError(LinkError):
    """The other side sent something the protocol does not allow."""


class LinkClosed(LinkError):
    """The connection is gone. `code` and what follows it are set where the other side said Goodbye."""

    def __init__(self, reason: str, code: GoodbyeCode | None = None, retry_after_s: float = 0.0, term: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.retry_after_s = retry_after_s
        self.term = term


class CallLost(LinkError):
    """A call has no answer: the link was lost, or time ran out. What it asked for may have been done, or may yet be."""
