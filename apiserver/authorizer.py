"""
Who may do what, asked of the roles, bindings and pods that are in the storage at this moment.

The indexes follow the storage's changes and catch up when they are asked, so a binding counts from the moment
its creation was answered, and nothing has to run beside the server.
"""

from collections.abc import Sequence
from typing import Protocol

from apimachinery.errors import Expired
from apimachinery.events import Change, EventType
from apimachinery.resources import PODS
from apiserver import rbac
from apiserver.attributes import Attributes, forbidden
from apiserver.nodes import Nodes, node_of
from apiserver.plans import View
from apiserver.rbac import Rbac
from apiserver.users import User


class Source(Protocol):
    """What the authorizer follows."""

    @property
    def revision(self) -> int: ...

    def since(self, revision: int) -> Sequence[Change]: ...

    def view(self) -> View: ...


class Authorizer:
    """Decisions over a Source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._revision = -1
        self._index = Rbac()
        self._nodes = Nodes()

    @property
    def rbac(self) -> Rbac:
        """What roles allow, up to the last change that readers can see."""
        self._catch_up()
        return self._index

    @property
    def nodes(self) -> Nodes:
        """What nodes may, likewise."""
        self._catch_up()
        return self._nodes

    def _catch_up(self) -> None:
        if self._revision != self._source.revision:
            try:
                changes = self._source.since(self._revision) if self._revision >= 0 else None
            except Expired:  # nobody asked for longer than the window reaches back
                changes = None
            if changes is None:
                self._rebuild()
            else:
                for change in changes:
                    self._index.observe(change)
                    self._nodes.observe(change)
            self._revision = self._source.revision

    def _rebuild(self) -> None:
        self._index, self._nodes = Rbac(), Nodes()
        view = self._source.view()
        for kind in (*rbac.KINDS, PODS):
            for item in view.all_of(kind):
                change = Change(0, EventType.ADDED, item, None)
                self._index.observe(change)
                self._nodes.observe(change)

    def allows(self, user: User, asked: Attributes) -> tuple[bool, str]:
        """Whether, and if not, a reason where there is more to say than that no rule allows it."""
        if user.is_master:
            return True, ""
        node = node_of(user)
        if node is not None and self.nodes.allows(node, asked):
            return True, ""
        return self.rbac.allows(user, asked)

    def check(self, user: User, asked: Attributes) -> None:
        """Raises Forbidden, in kube-apiserver's words."""
        allowed, reason = self.allows(user, asked)
        if not allowed:
            raise forbidden(user, asked, reason)
