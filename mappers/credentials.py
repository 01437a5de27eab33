"""
What a device knows the mapper by, and how the mapper knows the device: passwords, tokens, CA files.

Secrets stand in files of one directory on the node or, as in KubeEdge's mappers, in the Device itself, where everybody
who may read devices reads them. It is one directory, of the operator's choice, because a Device names the host that a
secret is sent to: with any path allowed, whoever may edit Devices could have every file of the node sent to him.

Invariants
    a secret is in no error, no log and no repr
    only files of the secrets directory are read as secrets
    files are read at each connect, so that a changed one counts once the device has refused the old
    a certificate is always verified: against the system's CAs, or the one that is named

Errors
    Unusable    a file that is named cannot be used: mend it; the argument says which and why
"""

import base64
import functools
import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple

from mappers.settings import Settings

SECRETS_VARIABLES = ("FAIRLEAD_SECRETS", "CREDENTIALS_DIRECTORY")
"""Environment variables that name the secrets directory, the first that is set; systemd sets the second."""
SECRETS_DIRECTORY = "/etc/fairlead/secrets"
"""Where secrets are when none of them is set."""
SECRET_BYTES = 4096

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Unusable(Exception):
    """A file that the Device names cannot be used."""


class Secret:
    """A setting and its twin with the name of a file: `password` and `passwordFile`."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._value = settings.text(name, "")
        self._file = settings.text(f"{name}File", "")
        if self._value and self._file:
            raise settings.bad(f"{name}File", f"and {name} are there: one of them")
        if self._file and not _FILE_NAME.fullmatch(self._file):
            raise settings.bad(f"{name}File", "must be the name of a file in the mapper's secrets directory")
        self.setting = f"{name}File" if self._file else name
        """Which of the two it is, for a complaint."""

    def __bool__(self) -> bool:
        return bool(self._value or self._file)

    def reveal(self) -> str:
        """The secret. Raises Unusable."""
        return read_secret(self._file, self.setting) if self._file else self._value


def read_secret(file: str, setting: str) -> str:
    """What this file of the secrets directory holds; it is named alone or by its whole path. Raises Unusable."""
    directory = Path(next((os.environ[each] for each in SECRETS_VARIABLES if os.environ.get(each)), SECRETS_DIRECTORY))
    path = directory / file
    if path.parent != directory or not _FILE_NAME.fullmatch(path.name):
        raise Unusable(f"protocol.configData.{setting} must be a file in the mapper's secrets directory, {directory}")
    try:
        with path.open(encoding="utf-8") as opened:
            text = opened.read(SECRET_BYTES + 1).strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise Unusable(f"protocol.configData.{setting}: {path}: {reason}") from None
    if not text or len(text) > SECRET_BYTES:
        raise Unusable(f"protocol.configData.{setting}: {path} must hold 1 to {SECRET_BYTES} characters")
    return text


class Account(NamedTuple):
    """A name and its password; the name is empty where there is none."""

    username: str
    password: Secret

    @classmethod
    def read(cls, settings: Settings) -> "Account":
        """`username`, and `password` or `passwordFile`. Raises BadConfig."""
        account = cls(settings.text("username", ""), Secret(settings, "password"))
        if bool(account.username) != bool(account.password):
            raise settings.bad("username", "and password (or passwordFile) go together")
        return account

    def where(self) -> str:
        """Which settings to look at when the device does not accept it."""
        return f"username and {self.password.setting}"


def basic(account: Account) -> tuple[str, str]:
    """The header for RFC 7617. Raises Unusable."""
    pair = f"{account.username}:{account.password.reveal()}"
    return "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"


def bearer(token: Secret) -> tuple[str, str]:
    """The header for RFC 6750. Raises Unusable."""
    text = token.reveal()
    if not _TOKEN.fullmatch(text):
        raise Unusable(f"protocol.configData.{token.setting} holds characters that cannot be in a header")
    return "Authorization", f"Bearer {text}"


def tls_context(ca_file: str) -> ssl.SSLContext:
    """How to verify a server: by this CA, or by the system's where it is "". Raises Unusable."""
    try:
        return _tls_context(ca_file, Path(ca_file).stat().st_mtime_ns if ca_file else 0)
    except ssl.SSLError:
        raise Unusable(f"protocol.configData.caFile: {ca_file} holds no certificate in PEM") from None
    except OSError as exc:
        raise Unusable(f"protocol.configData.caFile: {ca_file}: {exc.strerror}") from None


@functools.lru_cache(maxsize=8)
def _tls_context(ca_file: str, _changed_at_ns: int) -> ssl.SSLContext:
    # Shared by all devices of one CA: the system's certificates take more than a MiB.
    return ssl.create_default_context(cafile=ca_file or None)
