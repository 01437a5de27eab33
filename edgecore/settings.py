"""
The configuration of edgecore: every setting with its meaning, default and limits; and what lies in a node's directory.

What is written here is what `edgecore config` prints.
"""

import enum
from dataclasses import dataclass
from pathlib import Path

from componentbase import cli, config
from componentbase.config import setting
from componentbase.endpoints import Endpoint
from componentbase.tls import TlsMin

PROG = "edgecore"
CONFIG_NAME = "edgecore.yaml"
SOCKET_NAME = "edgecore.sock"
STORE_NAME = "edge.db"
EMBEDDED = "embedded"
QUIC_PORT = 10001


QUIC_NAME = "link-quic.json"
"""What is remembered of QUIC, see edgehub.quicchoice."""


class TransportMode(enum.Enum):
    """What may carry the link."""

    AUTO = "auto"
    WEBSOCKET = "websocket"
    QUIC = "quic"


@dataclass(frozen=True)
class CloudConfig:
    """The hub this node belongs to; `edgecore join` writes it."""

    link: Endpoint = setting(Endpoint("", 10000), "HOST:PORT of cloudcore's link.")
    transport: TransportMode = setting(
        TransportMode.WEBSOCKET,
        "What carries the link: websocket, quic, or auto: QUIC where the hub answers over it, else the websocket.",
    )
    quic_port: int = setting(QUIC_PORT, "The port (UDP) of cloudcore's link over QUIC.", at_least=1, at_most=65_535)
    join: Endpoint = setting(
        Endpoint("", 10002),
        "HOST:PORT of cloudcore's join endpoint, where certificates are renewed; an empty host is the link's.",
    )
    certificate_authority: Path = setting(Path("pki/ca.crt"), "The CA that signed the hub's certificate.")
    certificate: Path = setting(Path("pki/edge.crt"), "This node's certificate; its name is this node's identity.")
    key: Path = setting(Path("pki/edge.key"), "The private key; it never leaves this machine.")
    tls_min: TlsMin = setting(TlsMin.TLS_1_3, "The oldest TLS that is spoken with cloudcore: 1.3 or 1.2.")


@dataclass(frozen=True)
class MqttConfig:
    """Where devices and mappers speak with this node."""

    broker: str = setting(EMBEDDED, '"embedded" for a broker inside edgecore, or mqtt[s]://[USER@]HOST:PORT.')
    listen: Endpoint = setting(Endpoint("127.0.0.1", 1883), "Where the embedded broker listens.")
    anonymous: bool = setting(True, "Whether the embedded broker takes clients without a name and a password.")
    users: Path = setting(Path("mqtt-users.json"), "The embedded broker's users; `edgecore mqtt user` writes it.")
    certificate: Path | None = setting(
        None, "What the embedded broker shows, so that it speaks TLS; to another broker: ours, if it asks for one."
    )
    key: Path | None = setting(None, "The certificate's key, where that is not in the same file.")
    certificate_authority: Path | None = setting(
        None, "The CA that an mqtts:// broker's certificate must be from; the system's by default."
    )
    password_file: Path | None = setting(
        None, "USER's password at another broker, in its first line; or systemd's credential mqtt-password."
    )


@dataclass(frozen=True)
class DevicesConfig:
    """The twins of this node's devices."""

    stale_after_s: int = setting(
        180,
        "How long a reading counts if nobody repeats it; three reportCycles where that is longer; 0: for ever.",
        at_least=0,
    )
    history_rows: int = setting(
        50_000,
        "How many readings are remembered for `edgecore device history`, of all devices together: some 40 bytes each, "
        "one per property in ten seconds at most; 0: none.",
        at_least=0,
        at_most=5_000_000,
    )


@dataclass(frozen=True)
class ApiConfig:
    """The local Kubernetes API, served from this node's own store."""

    enabled: bool = setting(True, "Whether to serve it.")
    listen: Endpoint = setting(
        Endpoint("127.0.0.1", 10550),
        "Where; without TLS whoever can connect from this machine is the node, Secrets included.",
    )
    tls: bool = setting(
        False,
        "Serve it with TLS, to this node's certificate and ServiceAccount tokens; then it may listen on any address.",
    )
    certificate: Path = setting(Path("pki/api.crt"), "What it shows with TLS; joining made it.")
    key: Path = setting(Path("pki/api.key"), "The certificate's key.")
    interest_idle_s: int = setting(
        7 * 86_400,
        "What a client asked for beyond this node's own is kept up to date until nobody has read it for so long.",
        at_least=60,
    )


@dataclass(frozen=True)
class SecretsConfig:
    """Secrets are encrypted on this node's disk."""

    key_file: Path | None = setting(
        None,
        "The key, made where it is missing; by default systemd's credential secrets-key, or a file beside the data "
        "directory: DIR.secrets-key.",
    )


@dataclass(frozen=True)
class EdgeConfig:
    """Configuration of edgecore. Relative paths are taken from the directory of this file."""

    node: str = setting("", "The node's name in Kubernetes; must be the one in the certificate.")
    cloud: CloudConfig = CloudConfig()
    mqtt: MqttConfig = MqttConfig()
    devices: DevicesConfig = DevicesConfig()
    api: ApiConfig = ApiConfig()
    secrets: SecretsConfig = SecretsConfig()


def load(path: Path) -> EdgeConfig:
    """A node's configuration. Raises CommandError, of which componentbase.config.ConfigError is one."""
    if path.name == CONFIG_NAME and not path.exists():
        raise cli.CommandError(
            f"{path.parent} is not a node's directory: there is no {path.name}; run `{PROG} join` first"
        )
    settings = config.load(EdgeConfig, path)
    if not settings.node:
        raise config.ConfigError(str(path), None, "node is missing: the name that this machine joined as")
    if not settings.cloud.link.host:
        raise config.ConfigError(str(path), None, "cloud.link is missing: HOST:PORT of cloudcore's link")
    return settings


def are_joined(cloud: CloudConfig, data_dir: Path) -> bool:
    """Whether the files are where `edgecore join` put them."""
    home = (data_dir / "pki").resolve()
    expected = [home / "ca.crt", home / "edge.crt", home / "edge.key"]
    return [path.resolve() for path in (cloud.certificate_authority, cloud.certificate, cloud.key)] == expected


def join_endpoint(cloud: CloudConfig) -> Endpoint:
    """Where certificates are renewed."""
    return cloud.join if cloud.join.host else Endpoint(cloud.link.host, cloud.join.port)
