"""
Which names a node can have: those that a Node object can, and that fit into a certificate.

Both ends of joining ask here, so that neither lets pass what the other refuses.
"""

import json
import re

MAX_NAME = 52
"""X.509 allows 64 characters in a common name (RFC 5280, ub-common-name), of which `system:node:` takes 12."""

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def problem(name: str) -> str:
    """Why no node can be called this, as a sentence; "" where one can."""
    if not 0 < len(name) <= MAX_NAME:
        return f"a node name has 1 to {MAX_NAME} characters, for which a certificate has room; this one has {len(name)}"
    if not _NAME.fullmatch(name):
        return (
            f"{json.dumps(name)} cannot be a node name: use lower-case letters, digits, '-' and '.', "
            "beginning and ending with a letter or digit"
        )
    return ""
