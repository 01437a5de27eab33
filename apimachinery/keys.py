"""
What an object is called and which version of it is meant.

Every part of the system names objects with these three types and nothing else, so that no path is
ever split on slashes to find out what it points at. A cluster-scoped object has the namespace "".

Invariants
    ObjectVersion is opaque: == and != are its only operators, no code may order two of them
    ObjectKey sorts (resource, namespace, name); the digest of a node's inventory depends on that order
"""

from typing import NamedTuple, NewType

Node = NewType("Node", str)
"""A node's name, as in metadata.name of its Node object and in its certificate's subject."""


class Resource(NamedTuple):
    """
    A kind of object as the API addresses it.

    Only group and plural identify it (`same_kind` on two API versions of one kind is the apiserver's
    business, not ours); the rest is what is needed to build a path or answer discovery.
    """

    group: str
    """API group, "" for the core group."""
    version: str
    """API version, for example "v1"."""
    plural: str
    """The name in paths, for example "configmaps"."""
    kind: str
    """The name in bodies, for example "ConfigMap"."""
    namespaced: bool

    @property
    def api_version(self) -> str:
        """What stands in a body's apiVersion field: "v1" or "group/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> str:
        """`plural.group`, the way kubectl and custom resource definitions name it; `plural` for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The request path on an apiserver; an empty namespace of a namespaced resource means all of them."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


class ObjectKey(NamedTuple):
    """One object's place in the API: which resource, which namespace ("" when cluster-scoped), which name."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        scope = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource.collection}/{scope}{self.name}"


class ObjectVersion(NamedTuple):
    """Which state of which incarnation of an object; opaque, compared for equality only."""

    uid: str
    """The incarnation: an object deleted and made again under the same name has another uid."""
    revision: str
    """The state: a digest of what the node can see, so a change it cannot see is no new version."""
