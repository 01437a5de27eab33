"""
The embedded broker's users: a JSON file with hashed passwords, who they are and what they may do.

    {"users": {"modbus": {"password": "scrypt$16384$8$1$SALT$KEY", "mapper": true, "devices": ["default/pump"]}}}

`edgecore mqtt user` writes it; a running broker notices. scrypt's cost is what OpenSSL and RFC 7914 give for somebody
who waits: 16 MB and some 50 ms, in a thread, one at a time. A password that was right once is remembered as a keyed
hash in memory, so that mappers that come back cost nothing and cannot be held up by somebody who guesses.

Invariants
    a password is never written, logged or kept in clear; the file is the owner's alone, and whole after a crash
    a file that cannot be read changes nothing in a running broker, and is an error at its start
    verifying a user that does not exist takes as long as verifying one that does
"""

import base64
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from componentbase.errors import CommandError
from componentbase.files import write_atomic
from devicetwin.broker.access import Access, Account

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 4 << 20
MAX_PASSWORD_BYTES = 1024  # MQTT allows 65,535; hashing takes the longer the longer it is
MIN_PASSWORD_CHARS = 8
_COST = (1 << 14, 8, 1)  # n, r, p: RFC 7914, section 2, for interactive use
_MAX_MEMORY = 64 << 20  # of one hash: what a file from elsewhere may ask for
_KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")  # also a level of a topic, and a mapper's name


class UsersError(CommandError):
    """The users' file cannot be read, or does not allow what was asked; the text says what to do."""


# ---- passwords


def hashed(password: str) -> str:
    """A password as it stands in the file. Raises UsersError for one that is too short or too long."""
    if len(password) < MIN_PASSWORD_CHARS:
        raise UsersError(f"the password must have {MIN_PASSWORD_CHARS} characters at least")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise UsersError(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    salt = secrets.token_bytes(16)
    key = _scrypt(password.encode(), salt, *_COST)
    return "$".join(("scrypt", *map(str, _COST), _text(salt), _text(key)))


def is_right(account: Account | None, password: bytes) -> bool:
    """Whether this is the account's password. Takes some 50 ms, for no account too; lets other threads run."""
    stored = account.password if account is not None else _nobodys()
    try:
        kind, n, r, p, salt, key = stored.split("$")
        if kind != "scrypt" or len(password) > MAX_PASSWORD_BYTES:
            return False
        found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    except ValueError:  # damaged, or asks for more memory than is allowed
        return False
    return hmac.compare_digest(found, base64.b64decode(key)) and account is not None


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=_KEY_BYTES)


def _nobodys() -> str:
    return "$".join(("scrypt", *map(str, _COST), _text(bytes(16)), _text(bytes(_KEY_BYTES))))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# ---- the file


def load(path: Path) -> dict[str, Account]:
    """Every user; none if there is no file. Raises UsersError."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsersError(f"{path}: other users of this machine can read or write it: chmod 600 {path}")
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise UsersError(f"{path}: cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise UsersError(f"{path}: larger than {MAX_FILE_BYTES} bytes: is it the right file?")
    try:
        users = json.loads(content)["users"]
        return {str(name): read_account(name, entry) for name, entry in users.items()}
    except UsersError as exc:
        raise UsersError(f"{path}: {exc}") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UsersError(f'{path}: is no file of users, which is {{"users": {{NAME: ...}}}}') from exc


def read_account(name: object, entry: object) -> Account:
    """A user as an entry of the file describes it. Raises UsersError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsersError(f'"{name}" is no name of a user: up to 100 letters, digits, dots, hyphens or underscores')
    if not isinstance(entry, dict):
        raise UsersError(f"{name}: must be an object")
    if unknown := entry.keys() - {"password", "mapper", "devices", "topics"}:
        raise UsersError(f"{name}: unknown member {', '.join(sorted(unknown))}")
    password, mapper = entry.get("password"), entry.get("mapper", False)
    devices, topics = entry.get("devices", []), entry.get("topics", [])
    if not isinstance(password, str) or not isinstance(mapper, bool):
        raise UsersError(f"{name}: password must be a text and mapper true or false")
    if not all(isinstance(each, list) and all(isinstance(item, str) for item in each) for each in (devices, topics)):
        raise UsersError(f"{name}: devices and topics must be lists of texts")
    try:
        return Account(name=name, password=password, mapper=mapper, devices=tuple(devices), topics=tuple(topics))
    except ValueError as exc:
        raise UsersError(f"{name}: {exc}") from exc


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Account]]:
    """The users, to be changed in place; written at the end of the block. Two commands at once wait for each other."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        users = load(path)
        yield users
        entries = {name: _entry(account) for name, account in sorted(users.items())}
        write_atomic(path, json.dumps({"users": entries}, indent=2).encode() + b"\n")
    finally:
        os.close(fd)


def _entry(account: Account) -> dict[str, object]:
    entry: dict[str, object] = {"password": account.password, "mapper": account.mapper}
    if account.devices:
        entry["devices"] = list(account.devices)
    if account.topics:
        entry["topics"] = list(account.topics)
    return entry


# ---- a running broker's view


class UserFile:
    """The file as a running broker watches it."""

    def __init__(self, path: Path | None, *, anonymous: bool) -> None:
        """Raises UsersError. path: None for a broker without users."""
        self._path = path
        self._seen = self._stamp()
        self.access = Access(load(path) if path is not None else {}, anonymous)
        self._key = secrets.token_bytes(32)
        self._known: dict[str, tuple[Account, bytes]] = {}
        """By user: the password that was right last, as a hash under a key that ends with this process."""

    def changed(self) -> Access | None:
        """The new state of things if the file has changed. To be called about once a second."""
        stamp = self._stamp()
        if self._path is None or stamp == self._seen:
            return None
        self._seen = stamp
        try:
            users = load(self._path)
        except UsersError as exc:
            logger.error("the users of the MQTT broker stay as they were", extra={"reason": str(exc)})
            return None
        self.access = Access(users, self.access.anonymous)
        self._known = {name: known for name, known in self._known.items() if users.get(name) == known[0]}
        logger.info("users of the MQTT broker read", extra={"path": str(self._path), "users": len(users)})
        return self.access

    def recall(self, name: str, password: bytes) -> Account | None:
        """The account, if this password was right before: at once, without the work that verifying is."""
        known = self._known.get(name)
        if known is None or not hmac.compare_digest(known[1], self._digest(password)):
            return None
        return known[0]

    def verifier(self, name: str, password: bytes) -> Callable[[], Account | None]:
        """What to call in a thread: the account if the password is right."""
        account = self.access.users.get(name)

        def verify() -> Account | None:
            return account if is_right(account, password) else None

        return verify

    def remember(self, account: Account, password: bytes) -> None:
        """The password was right."""
        if self.access.users.get(account.name) == account:
            self._known[account.name] = (account, self._digest(password))

    def _digest(self, password: bytes) -> bytes:
        return hmac.digest(self._key, password, "sha256")

    def _stamp(self) -> tuple[int, int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
