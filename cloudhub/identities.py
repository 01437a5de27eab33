"""
As whom the apiserver is asked on behalf of somebody at the edge.

The hub knows a node by its certificate and nobody else there. A node that names a ServiceAccount is believed where
there is one and a pod that is bound to the node uses it: a kubelet gets tokens for just those, so a lie gains nothing.

Pure state: no clock, no I/O.
"""

import re
from typing import NamedTuple

from apimachinery.errors import Forbidden
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.resources import PODS, SERVICE_ACCOUNTS
from apimachinery.watchcache import WatchCache
from cloudhub.placement import Placement

NODE_PREFIX = "system:node:"
"""A node's certificate has this plus its name as common name, as a kubelet's has; and so the apiserver is told."""
EDGE_LABEL = "node-role.kubernetes.io/edge"
"""Of a Node that a hub has made. Kubernetes prints it as the node's role; KubeEdge's nodes have it too."""
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


def identity_of(node: Node, user: str, placement: Placement, cache: WatchCache) -> Identity:
    """
    Who it is that a node speaks for. O(pods on the node).

    user: "" for the node itself, else a ServiceAccount's. cache: has all ServiceAccounts. Raises Forbidden.
    """
    if not user:
        return Identity(NODE_PREFIX + node, ("system:nodes", "system:authenticated"), ("system:nodes",))
    account = _ACCOUNT.fullmatch(user)
    if account is None:
        raise Forbidden(
            f'node "{node}" may speak for itself and for ServiceAccounts of its pods, not for "{user[:300]}"'
        )
    namespace, name = account[1], account[3]
    key = ObjectKey(SERVICE_ACCOUNTS, namespace, name)
    if not placement.refers(node, key, PODS):
        raise Forbidden(f'no pod on node "{node}" uses the ServiceAccount "{namespace}/{name}"')
    if cache.get(key) is None:
        # A role binding outlives it, and impersonation does not ask whether it is there.
        raise Forbidden(f'there is no ServiceAccount "{namespace}/{name}" any more')
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Identity(user, groups, ())


def refused(identity: Identity, verb: str, resource: Resource, namespace: str, name: str, subresource: str = "") -> str:
    """That somebody may not do this, in the apiserver's words."""
    what = f'{resource.collection} "{name}"' if name else resource.collection
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return (
        f'{what} is forbidden: User "{identity.user}" cannot {verb} resource "{plural}" '
        f'in API group "{resource.group}" {where}'
    )
