"""
How commands, logs and errors write times and counts, so that a person meets one form of either.
"""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """2026-11-24T09:12:40Z: in UTC and to the second, as Kubernetes writes times. The moment must have its zone."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted(number: int, noun: str) -> str:
    """1 node, 2 nodes, of nouns whose plural has an s and nothing else."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
