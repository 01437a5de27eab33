"""Kubeconfigs that are of no use, and an apiserver's refusal, in words for whoever chose them."""

from pathlib import Path

import pytest

from apimachinery.errors import Forbidden, Unauthorized
from cloudhub.apiclient import ApiUnreachable
from cloudhub.credentials import client, refusal
from componentbase.errors import CommandError


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=str(tmp_path / "none")):
        client(tmp_path / "none")


def test_where_none_was_named_the_advice_is_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="; name one with --kubeconfig"):
        client(None)


def test_a_refusal_says_whose_words_it_is() -> None:
    assert refusal(Unauthorized("no")).endswith("in the kubeconfig (no); name another with --kubeconfig")
    assert refusal(ApiUnreachable("no answer")) == "no answer"
    assert refusal(Forbidden("nodes is forbidden")) == "the apiserver answers: nodes is forbidden"
