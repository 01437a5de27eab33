"""
As whom the apiserver is asked on behalf of somebody at the edge.

The hub knows a node by its certificate and nobody else there. A node that names a ServiceAccount is believed where a
pod that is bound to it uses that account: a kubelet gets tokens for just those, so a node gains nothing by a lie.

Pure state: no clock, no I/O.
"""

import re
from typing import NamedTuple

from apimachinery.errors import Forbidden
from apimachinery.keys import Node, ObjectKey
from apimachinery.resources import PODS, SERVICE_ACCOUNTS
from cloudhub.placement import Placement

NODE_PREFIX = "system:node:"
"""A node's certificate has this plus its name as common name, as a kubelet's has; and so the apiserver is told."""
ACCOUNT_PREFIX = "system:serviceaccount:"
_ACCOUNT = re.compile(re.escape(ACCOUNT_PREFIX) + r"([a-z0-9]([-a-z0-9]*[a-z0-9])?):([a-z0-9]([-a-z0-9.]*[a-z0-9])?)")


class Identity(NamedTuple):
    """A user of the apiserver."""

    user: str
    groups: tuple[str, ...]
    """As the apiserver's own authentication would have them."""
    impersonated_groups: tuple[str, ...]
    """
    Those to be named when a request is made as this user: the apiserver adds the rest by itself. The hub needs the
    right to impersonate each one that it names, and should need few.
    """


def identity_of(node: Node, user: str, placement: Placement) -> Identity:
    """
    Who it is that a node speaks for. O(pods on the node).

    user: "" for the node itself, else a ServiceAccount's. Raises Forbidden.
    """
    if not user:
        return Identity(NODE_PREFIX + node, ("system:nodes", "system:authenticated"), ("system:nodes",))
    account = _ACCOUNT.fullmatch(user)
    if account is None:
        raise Forbidden(
            f'node "{node}" may speak for itself and for ServiceAccounts of its pods, not for "{user[:300]}"'
        )
    namespace, name = account[1], account[3]
    if not placement.refers(node, ObjectKey(SERVICE_ACCOUNTS, namespace, name), PODS):
        raise Forbidden(f'no pod on node "{node}" uses the ServiceAccount "{namespace}/{name}"')
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Identity(user, groups, ())
