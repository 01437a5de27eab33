"""
What is promised: one function per feature, each against any client at any place.

A check fails by AssertionError, or by the Refused that it did not expect.
"""

import inspect
from collections.abc import Iterator
from types import ModuleType

from tests.conformance.checks import commands, own, reads, watches, writes
from tests.conformance.checks.bench import Check


def _of(module: ModuleType) -> Iterator[tuple[str, Check]]:
    for name, value in inspect.getmembers(module, inspect.iscoroutinefunction):
        if value.__module__ == module.__name__ and not name.startswith("_"):
            yield name, value


CHECKS: dict[str, Check] = {
    name: check for module in (reads, watches, writes, own, commands) for name, check in _of(module)
}
"""By the name of the feature."""
