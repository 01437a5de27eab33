"""
What `protocol.configData` says of an OPC UA server: where it is, who we are, and how to know it.

Invariants
    a password and a private key are in files of the mapper's machine, never in a Device, which many may read
    a password is in the secrets directory: whoever edits a Device names the server that it is sent to
    with a security policy the server is known by its certificate: who is not known is not told a password

It reads no file. The driver is mappers/opcua.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from apimachinery.objects import JSON
from mappers.settings import Settings
from mappers.words import Device

_POLICIES = ("None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
_BROKEN_POLICIES = ("Basic128Rsa15", "Basic256")
"""KubeEdge's mapper has them; they rest on SHA-1, and the standard has deprecated them since 1.04 (Part 7)."""
_MODES = ("None", "Sign", "SignAndEncrypt")

_MAYBE_OF_NO_USE = ("customizedValues", "password", "certificate", "privateKey", "remoteCertificate")
"""Known also where no user and no policy asks for them."""


class Security(NamedTuple):
    """How messages are protected."""

    policy: str
    mode: str
    certificate: Path
    private_key: Path
    remote_certificate: Path
    """The server's."""


class Endpoint(NamedTuple):
    """One server, as one device uses it."""

    url: str
    timeout_s: float
    user: str
    """"" for an anonymous session."""
    password_file: str
    """Its name in the secrets directory, or its whole path; "" where there is no user."""
    security: Security | None

    @classmethod
    def of_device(cls, device: Device) -> "Endpoint":
        """Raises BadConfig."""
        settings = Settings("protocol.configData", _flat(device.settings), _MAYBE_OF_NO_USE)
        user = settings.text("userName", "")
        password_file = settings.text("password") if user else ""
        endpoint = cls(
            _url(settings),
            settings.number("timeout", 4.0, minimum=0.1, maximum=9.0),
            user,
            password_file,
            _security(settings),
        )
        settings.done()
        return endpoint


def _flat(settings: Mapping[str, JSON]) -> dict[str, JSON]:
    """KubeEdge's older form has the server's certificate among `customizedValues`."""
    custom = settings.get("customizedValues")
    remote = custom.get("remoteCertificate") if isinstance(custom, Mapping) else None
    return {**settings, "remoteCertificate": remote} if remote is not None else dict(settings)


def _url(settings: Settings) -> str:
    url = settings.text("url")
    parts = urlsplit(url)
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise settings.bad("url", "must be opc.tcp://HOST:PORT, with a path where the server has one")
    if parts.username is not None or parts.password is not None:
        raise settings.bad("url", "must be without a name and a password: they have settings of their own")
    return url


def _file(settings: Settings, name: str) -> Path:
    path = Path(settings.text(name))
    if not path.is_absolute():
        raise settings.bad(name, "must be the absolute path of a file on the machine of the mapper")
    return path


def _security(settings: Settings) -> Security | None:
    policy = settings.choice("securityPolicy", (*_POLICIES, *_BROKEN_POLICIES), "None")
    mode = settings.choice("securityMode", _MODES, "None" if policy == "None" else "SignAndEncrypt")
    if policy in _BROKEN_POLICIES:
        raise settings.bad("securityPolicy", f"{policy} is broken; use {_POLICIES[1]}")
    if (policy == "None") is not (mode == "None"):
        raise settings.bad("securityMode", f"{mode} does not go with securityPolicy {policy}")
    if policy == "None":
        return None
    return Security(
        policy, mode, *(_file(settings, name) for name in ("certificate", "privateKey", "remoteCertificate"))
    )
