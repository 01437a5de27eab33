"""
The configuration of cloudcore: every setting with its meaning, default and limits.

What is written here is what `cloudcore config` prints. The module is light, for a supervisor of workers needs
the settings and none of what they configure.
"""

import enum
from dataclasses import dataclass
from pathlib import Path

from cloudhub.interests import AT_ONCE, IDLE_S, MOST_RESOURCES, RECHECK_S
from cloudhub.placement import By
from cloudhub.presence import LEASE_RENEW_S, NODE_GRACE_S
from cloudhub.projection import is_unseen
from cloudhub.reports import MIN_INTERVAL_S
from cloudhub.sessions import GRACE_S
from componentbase import config
from componentbase.config import setting
from componentbase.endpoints import Endpoint
from componentbase.tls import TlsMin
from link.peer import HEARTBEAT_S

SOCKET_NAME = "cloudcore.sock"
"""In the data directory: where the process answers its own commands."""


NODE_S = 365 * 86400.0
"""Of a node's certificate: a machine that is away for a season can do without help when it is back."""
WINDOW_S = 30 * 86400.0
"""A machine that was in a box over the holidays renews when it is back; what was stolen longer ago does not."""
RELOAD_S = 30.0


@dataclass(frozen=True)
class LinkConfig:
    """The link that edge nodes connect to."""

    listen: Endpoint = setting(Endpoint("", 10000), "HOST:PORT; an empty host is every address of this machine.")
    quic_listen: Endpoint | None = setting(
        None, "HOST:PORT (UDP) for nodes that dial with QUIC, usually :10001; of several workers the first has it."
    )
    heartbeat_s: float = setting(
        HEARTBEAT_S, "How often an idle node shows that it is there; 2.5 of them is gone.", at_least=1, at_most=3600
    )
    grace_s: float = setting(
        GRACE_S, "How long what a node has is remembered after it left; then its digest tells.", at_least=0
    )
    tls_min: TlsMin = setting(TlsMin.TLS_1_3, "The oldest TLS that the link and the join endpoint speak: 1.3 or 1.2.")


KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
"""Of the cluster's own signers the one whose certificates are a node's: CN=system:node:NAME, O=system:nodes."""


class SignedBy(enum.Enum):
    """Whose CA signs the nodes' certificates."""

    FAIRLEAD = "fairlead"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True)
class JoinConfig:
    """Where new nodes get their certificates."""

    listen: Endpoint = setting(Endpoint("", 10002), "HOST:PORT; an empty host is every address of this machine.")
    advertise: tuple[str, ...] = setting(
        (), "Names and addresses that nodes reach this hub under, besides those of this machine."
    )
    certificate_s: float = setting(
        NODE_S,
        "How long a node's certificate is valid; it is renewed before two thirds of that. Below an hour is for tests.",
        at_least=2,
        at_most=10 * NODE_S,
    )
    renewal_window_s: float = setting(
        WINDOW_S,
        "For how long after its end a certificate renews, of a node that was away; 0: it joins again.",
        at_least=0,
    )
    signer: SignedBy = setting(
        SignedBy.FAIRLEAD, "Whose CA signs nodes: fairlead (its own), or kubernetes (CertificateSigningRequests)."
    )
    signer_name: str = setting(KUBELET_SIGNER, "With kubernetes: spec.signerName of the requests.")
    approve: bool = setting(
        True, "With kubernetes: whether cloudcore approves what it has checked; else `kubectl certificate approve`."
    )
    client_ca: Path | None = setting(
        None, "With kubernetes: the signer's CA; what the cluster publishes for its clients where there is none."
    )
    reload_s: float = setting(
        RELOAD_S, "How often the certificate authorities are looked at.", at_least=0.2, at_most=3600
    )

    def __post_init__(self) -> None:
        if self.signer is not SignedBy.KUBERNETES and (
            self.client_ca or not self.approve or self.signer_name != KUBELET_SIGNER
        ):
            raise ValueError("it is about the cluster's signer: say signer: kubernetes (--signer kubernetes), too")
        domain, _, name = self.signer_name.partition("/")
        if not domain or not name:
            raise ValueError("a signer's name is DOMAIN/NAME, as in the cluster's spec.signerName")


class OnClone(enum.Enum):
    """What to do about a certificate that is used from two places."""

    WARN = "warn"
    BAN = "ban"


@dataclass(frozen=True)
class NodesConfig:
    """The Node objects of connected nodes."""

    grace_s: float = setting(NODE_GRACE_S, "Without a word for this long a node's Ready becomes Unknown.", at_least=1)
    renew_s: float = setting(
        LEASE_RENEW_S, "Between renewals of a node's Lease; half of graceSeconds at most.", at_least=1, at_most=3600
    )
    on_clone: OnClone = setting(
        OnClone.WARN,
        "When a certificate is used from two places: warn (an Event on the Node), or ban the node as well.",
    )


@dataclass(frozen=True)
class ReportsConfig:
    """What nodes report, on its way into the status of objects."""

    min_interval_s: float = setting(
        MIN_INTERVAL_S, "Between two writes of one object's status; the last value always arrives.", at_least=0
    )


@dataclass(frozen=True)
class InterestConfig:
    """What nodes may have besides what is placed on them: objects that are read there, requests to the apiserver."""

    enabled: bool = setting(True, "Needs the rights that docs/operations.md lists; without them all of it is refused.")
    max_resources: int = setting(
        MOST_RESOURCES, "Kinds watched for nodes beside those of the rules.", at_least=0, at_most=48
    )
    idle_s: float = setting(IDLE_S, "How long such a kind is watched after the last node lost interest.", at_least=0)
    recheck_s: float = setting(RECHECK_S, "How long a right that was taken back may still count.", at_least=1)
    max_calls: int = setting(AT_ONCE, "Requests of nodes under way to the apiserver at once.", at_least=1, at_most=48)


@dataclass(frozen=True)
class RuleConfig:
    """One further kind of object for the nodes."""

    resource: str = setting("", "PLURAL.GROUP, or PLURAL for the core group, as kubectl names it.")
    by: By = setting(
        By.ALL_NODES, "allNodes, field (path names the node), label (path is its key), reference (from, path)."
    )
    path: str = setting("", "The field's path, such as spec.nodeName, or the label's key.")
    namespace: str = setting("", "Only objects of this namespace.")
    names: tuple[str, ...] = setting((), "Only objects of these names.")
    referrer: str = setting("", "For reference: the resource whose objects name these at `path`.")

    def __post_init__(self) -> None:
        if not self.resource:
            raise ValueError("a rule needs resource: PLURAL.GROUP, as kubectl names it")
        if self.by is not By.ALL_NODES and not self.path:
            raise ValueError(f"a rule by {self.by.value} needs path, or it places nothing")
        if self.by is By.REFERENCE and not self.referrer:
            raise ValueError("a rule by reference needs referrer: the resource whose objects name these at path")
        read = self.referrer or self.resource
        if self.by in (By.FIELD, By.REFERENCE) and is_unseen(read, self.path):
            raise ValueError(f"cloudcore does not follow changes of {self.path} of {read}: name a field of its spec")


@dataclass(frozen=True)
class CloudConfig:
    """Configuration of cloudcore. Relative paths are taken from the directory of this file."""

    workers: int = setting(
        1,
        "Processes that share the ports of the link and the join endpoint, each a hub of its own.",
        at_least=1,
        at_most=64,
    )
    kubeconfig: Path | None = setting(None, "The apiserver; none takes $KUBECONFIG or a pod's service account.")
    link: LinkConfig = LinkConfig()
    join: JoinConfig = JoinConfig()
    nodes: NodesConfig = NodesConfig()
    reports: ReportsConfig = ReportsConfig()
    interest: InterestConfig = InterestConfig()
    metrics: Endpoint | None = setting(None, "HOST:PORT for Prometheus; they are on the status socket in any case.")
    placement: tuple[RuleConfig, ...] = setting(
        (), "Rules beside the standard ones: pods with what they refer to, devices with their models, Node, Lease."
    )


def load(path: Path | None) -> CloudConfig:
    """The file's, or the defaults where there is none. Raises componentbase.config.ConfigError."""
    return CloudConfig() if path is None else config.load(CloudConfig, path)
