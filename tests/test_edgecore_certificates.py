"""What a node shows, and what is said of files that cannot be shown; the rest: test_rotation_end_to_end.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from componentbase.cli import CommandError
from edgecore.certificates import api_context, link_context, renewal
from edgecore.settings import ApiConfig, CloudConfig, EdgeConfig
from edgehub.connector import LinkStatus


def in_directory(home: Path) -> CloudConfig:
    return CloudConfig(certificate_authority=home / "ca.crt", certificate=home / "edge.crt", key=home / "edge.key")


def test_a_file_that_is_missing_or_no_certificate_is_named(tmp_path: Path) -> None:
    cloud = in_directory(tmp_path)
    for name in ("ca.crt", "edge.crt"):
        with pytest.raises(CommandError, match=f"cannot read {tmp_path / name}: No such file.*put it back"):
            link_context(cloud)
        (tmp_path / name).write_text("no certificate")
    (tmp_path / "edge.key").write_text("no key")
    with pytest.raises(CommandError, match=r"certificates cannot be used .*join again with --force"):
        link_context(cloud)
    api = ApiConfig(certificate=tmp_path / "api.crt", key=tmp_path / "api.key")
    with pytest.raises(CommandError, match=r"the local API's certificate and key cannot be used .*api\.crt"):
        api_context(EdgeConfig(cloud=cloud, api=api))


def test_certificates_are_renewed_only_where_joining_put_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = EdgeConfig(node="n", cloud=in_directory(tmp_path))
    assert renewal(elsewhere, tmp_path, LinkStatus(), lambda: None) is None
    joined = replace(elsewhere, cloud=in_directory(tmp_path / "pki"))
    assert renewal(joined, tmp_path, LinkStatus(), lambda: None) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"], "there is none to renew, and nothing ends"
