"""
Bytes that only the holder of a key can read or make: what Secrets are kept as on a node's disk.

A sealed value is

    0x01 | key id, 8 bytes | salt, 20 bytes | nonce, 12 bytes | ciphertext | tag, 16 bytes

ChaCha20-Poly1305 (RFC 8439), which is as fast and as safe on the processors of edge nodes that have no AES
instructions. It must never see a nonce twice under one key, and a counter would be set back with the disk that keeps
it; 96 random bits under one key, on the other hand, want counting. So each value has a key of its own, derived from
ours and 160 random bits by HKDF-Expand (RFC 5869): with the nonce there are 256 random bits to a value, as XChaCha20
has 192, and nothing has to be counted or remembered. The length of a value is not hidden.

Invariants
    a value opens only with the key that sealed it, and with the words it was bound to: bytes that were put into another
    place, or changed, do not open
    no key shows in a repr, a log or an error

`cryptography` is imported by the first value that is sealed or opened: 8 MB that a node without Secrets does not spend.
"""

import base64
import binascii
import hmac
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
OVERHEAD_BYTES = 1 + 8 + 20 + 12 + 16
"""What a sealed value is longer by."""
MAX_KEYS = 8  # one that seals and those before it; a rotation needs two

_FORMAT = b"\x01"  # no JSON begins so
_ID_BYTES, _SALT_BYTES, _NONCE_BYTES = 8, 20, 12
HEAD_BYTES = 1 + _ID_BYTES
"""As much of a sealed value as Keyring.knows and Keyring.is_current look at."""
_BODY_AT = HEAD_BYTES + _SALT_BYTES + _NONCE_BYTES


class SealingError(Exception):
    """
    The text says why, and has nothing of a key or a value.

        SealingError
        ├── BadKeys       mend the text that the keys are read from
        ├── UnknownKey    give the key that sealed this value, or do without it
        └── Tampered      the value is damaged, or was sealed for another place: do without it
    """


class BadKeys(SealingError):
    pass


class UnknownKey(SealingError):
    pass


class Tampered(SealingError):
    pass


class Keyring:
    """Keys: the first seals, each opens what it sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys, "without a key there is nothing to seal with"
        assert all(len(key) == KEY_BYTES for key in keys), "parse_keys looks at lengths"
        self._by_id = {_expand(key, b"id")[:_ID_BYTES]: key for key in reversed(keys)}
        self._current = _expand(keys[0], b"id")[:_ID_BYTES]

    def seal(self, value: bytes, *bound: str) -> bytes:
        """bound: where the value belongs; it opens with the same words only."""
        head = _FORMAT + self._current
        drawn = os.urandom(_SALT_BYTES + _NONCE_BYTES)
        return (
            head
            + drawn
            + _cipher(self._by_id[self._current], drawn).encrypt(drawn[_SALT_BYTES:], value, _bound(head, bound))
        )

    def open(self, sealed: bytes, *bound: str) -> bytes:
        """Raises UnknownKey and Tampered."""
        if not is_sealed(sealed) or len(sealed) < OVERHEAD_BYTES:
            raise Tampered("this is no sealed value")
        head, drawn = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:_BODY_AT]
        key = self._by_id.get(head[1:])
        if key is None:
            raise UnknownKey(f"the key {head[1:].hex()} that sealed this is not at hand")
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(key, drawn).decrypt(drawn[_SALT_BYTES:], sealed[_BODY_AT:], _bound(head, bound))
        except InvalidTag:
            raise Tampered("a sealed value is not what was sealed here") from None

    def knows(self, head: bytes) -> bool:
        """Whether the key is here that sealed the value with these first HEAD_BYTES."""
        return is_sealed(head) and head[1:HEAD_BYTES] in self._by_id

    def is_current(self, head: bytes) -> bool:
        """Whether the value with these first HEAD_BYTES was sealed with the key that seals now."""
        return is_sealed(head) and head[1:HEAD_BYTES] == self._current


def is_sealed(value: bytes) -> bool:
    """Whether it looks like a sealed value; no JSON does."""
    return value[:1] == _FORMAT


def new_key() -> str:
    """A key as a line of text: 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes them."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def key_lines(text: str) -> list[str]:
    """The lines of a key file that are keys; empty ones and those that begin with # are not."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def parse_keys(text: str) -> Keyring:
    """Keys, one per line, the one to seal with first. Raises BadKeys."""
    lines = key_lines(text)
    if not 0 < len(lines) <= MAX_KEYS:
        raise BadKeys(f"it has {len(lines)} keys instead of 1 to {MAX_KEYS}, one per line")
    keys = []
    for number, line in enumerate(lines, 1):
        try:
            key = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise BadKeys(
                f"key {number} is not {KEY_BYTES} bytes in base64, as `head -c {KEY_BYTES} /dev/urandom | base64` "
                "makes them"
            )
        keys.append(key)
    return Keyring(keys)


def _expand(key: bytes, about: bytes) -> bytes:
    """One block of HKDF-Expand with SHA-256. The key is random already and needs no HKDF-Extract (RFC 5869, 3.3)."""
    return hmac.digest(key, b"fairlead sealing " + about + b"\x01", "sha256")


def _bound(head: bytes, words: tuple[str, ...]) -> bytes:
    """Associated data: JSON, so that no two lists of words give the same bytes."""
    return head + json.dumps(words).encode()


def _cipher(key: bytes, drawn: bytes) -> "ChaCha20Poly1305":
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(_expand(key, b"value" + drawn[:_SALT_BYTES]))
