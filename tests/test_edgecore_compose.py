"""How a node begins, and what keeps it from beginning. That its parts work together: test_end_to_end.py."""

from pathlib import Path

import pytest

from componentbase.cli import CommandError
from componentbase.files import Locked, lock_dir
from edgecore.compose import serve
from edgecore.settings import CloudConfig, EdgeConfig


async def test_a_node_runs_once_in_a_directory(tmp_path: Path) -> None:
    with lock_dir(tmp_path), pytest.raises(Locked):
        await serve(EdgeConfig(node="n"), tmp_path)


async def test_without_certificates_nothing_is_begun(tmp_path: Path) -> None:
    cloud = CloudConfig(certificate_authority=tmp_path / "ca.crt")
    with pytest.raises(CommandError, match=r"ca\.crt: No such file or directory; put it back, or join again"):
        await serve(EdgeConfig(node="n", cloud=cloud), tmp_path)
    assert not (tmp_path / "edge.db").exists()
