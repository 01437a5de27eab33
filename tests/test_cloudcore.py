"""The hub's commands that need no apiserver. The rest: test_end_to_end.py."""

import sys
from pathlib import Path

import pytest

import cloudcore
from cloudhub.settings import CloudConfig, LinkConfig
from componentbase import config
from componentbase.endpoints import Endpoint


def run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cloudcore", *arguments])
        with pytest.raises(SystemExit) as ended:
            cloudcore.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_config_prints_every_default_and_reads_it_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config") == 0
    assert config.parse(CloudConfig, capsys.readouterr().out, "printed") == CloudConfig()


def test_a_file_is_printed_completed_and_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("placement:\n- {resource: policies.example.com, by: field, path: spec.node}\n")
    assert run("config", "--config", str(tmp_path / "c.yaml")) == 0
    assert "policies.example.com" in capsys.readouterr().out
    (tmp_path / "c.yaml").write_text("interest: {maxCalls: 0}\n")
    assert run("config", "--config", str(tmp_path / "c.yaml")) == 1
    assert "maxCalls" in capsys.readouterr().err


def test_the_definitions_are_printed_as_one_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("crds") == 0
    assert capsys.readouterr().out.count("kind: CustomResourceDefinition") == 3


def test_of_several_workers_the_first_has_quic() -> None:
    settings = CloudConfig(workers=3, link=LinkConfig(quic_listen=Endpoint("", 10001)))
    found = [cloudcore._of_worker(settings, number).link.quic_listen for number in (1, 2, 3)]
    assert found == [Endpoint("", 10001), None, None]
