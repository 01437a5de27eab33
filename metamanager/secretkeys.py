"""
Where the key is that a node's Secrets are sealed with: a file that is made at the first start, or systemd's credential.

The file has a key per line (componentbase.sealing): the first seals, those below it still open. It does not lie in
the data directory, so that who copies or backs up that one has nothing to read; unless the data directory is a volume
of its own, beside which nothing may last as long as it does, or nothing can be written there.

Losing the key loses nothing but the time until the hub has sent the Secrets again.
"""

import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

from componentbase.errors import CommandError
from componentbase.files import Unusable, write_atomic
from componentbase.sealing import MAX_KEYS, BadKeys, Keyring, key_lines, new_key, parse_keys

logger = logging.getLogger(__name__)

NAME = "secrets-key"
"""Of the file in the data directory, of systemd's credential, and what the file beside the directory ends with."""
MAX_FILE_BYTES = 4096

_HEAD = """\
# What this node's Secrets are encrypted with on its disk: a key per line, the first encrypts, the others only decrypt.
# Rotate with `edgecore rotate-secrets-key`. Where it is lost, the Secrets are asked of the hub again.
"""


class KeyFileError(CommandError):
    """The file of keys cannot be used; the text names it and says what to do."""


class Place(NamedTuple):
    """Where the keys are."""

    path: Path
    is_ours: bool
    """Whether edgecore makes and rotates it; otherwise somebody else does."""


def place_of(data_dir: Path, configured: Path | None) -> Place:
    """
    Which file holds the keys, or will.

    configured: what an operator says; then it is that one. Otherwise systemd's credential, where it is given, or the
    file that is there, or will be: beside the data directory, or in it.
    """
    if configured is not None:
        return Place(configured, True)
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory, NAME)
        if credential.exists():
            return Place(credential, False)
    sibling, inside = _files(data_dir)
    if not inside.exists() and _lasts_beside(data_dir.absolute()):
        return Place(sibling, True)
    return Place(file_of(data_dir), True)


def file_of(data_dir: Path) -> Path:
    """The file of keys that is there, beside a data directory or in it; where there is none, in it."""
    sibling, inside = _files(data_dir)
    return sibling if sibling.exists() else inside


def keys_of(place: Place) -> Keyring:
    """The keys, made where there are none and they are ours. Raises CommandError."""
    return make_keys(place.path) if place.is_ours else _read(place.path)


def make_keys(path: Path) -> Keyring:
    """The keys in a file, which is made with one where it is not there. Raises CommandError."""
    if not path.exists():
        _write(path, [new_key()])
        logger.info("a key was made that Secrets are encrypted with", extra={"path": str(path)})
    return _read(path)


def add_key(path: Path) -> Keyring:
    """Put a new key in front, and give them all. Raises CommandError."""
    former = key_lines(_text(path)) if path.exists() else []
    _write(path, [new_key(), *former[: MAX_KEYS - 1]])
    return _read(path)


def drop_former(path: Path) -> None:
    """Leave the first key only: nothing is sealed with another any more. Raises CommandError."""
    _write(path, key_lines(_text(path))[:1])


def _files(data_dir: Path) -> tuple[Path, Path]:
    """Beside a data directory, and in it."""
    data_dir = data_dir.absolute()
    return data_dir.with_name(f"{data_dir.name}.{NAME}"), data_dir / NAME


def _lasts_beside(data_dir: Path) -> bool:
    """Whether a file beside the directory can be made, and is on the same file system."""
    parent = data_dir.parent
    try:
        return os.access(parent, os.W_OK | os.X_OK) and parent.stat().st_dev == data_dir.stat().st_dev
    except OSError:
        return False


def _write(path: Path, lines: list[str]) -> None:
    try:
        write_atomic(path, (_HEAD + "\n".join(lines) + "\n").encode())
    except Unusable as exc:
        raise KeyFileError(
            f"{exc}; it is to hold the key that Secrets are encrypted with: name another place with secrets.keyFile of "
            "edgecore.yaml, or --secrets-key"
        ) from exc


def _read(path: Path) -> Keyring:
    text = _text(path)
    try:
        return parse_keys(text)
    except BadKeys as exc:
        raise KeyFileError(
            f"{path}: {exc}; mend it, or move it away: a new one is made, and the Secrets are asked of the hub again"
        ) from exc


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise KeyFileError(f"{path}: the key of the Secrets cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError(f"{path}: has more than {MAX_FILE_BYTES} bytes, and should have a key or two")
    if stat.S_IMODE(mode) & 0o077:
        logger.warning("the key of the Secrets can be read by others: chmod 600", extra={"path": str(path)})
    return content.decode("ascii", "replace")
