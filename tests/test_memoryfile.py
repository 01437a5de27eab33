"""A secret that is a file for a moment."""

import os
from pathlib import Path

import pytest

from cloudhub.memoryfile import as_file


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_a_secret_is_read_by_this_user_only_and_gone_after(
    monkeypatch: pytest.MonkeyPatch, *, has_memory_files: bool
) -> None:
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with as_file(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        if not has_memory_files:
            assert Path(path).parent.stat().st_mode & 0o077 == 0
    assert not Path(path).exists()
