"""What goes wrong on the link, as a client of the local API is told; and the marks on the cluster's versions."""

import json

import pytest

from apimachinery.errors import ApiError, TooManyRequests
from link.errors import CallLost, LinkClosed
from link.frames import CallHead
from metamanager.cloud import MARK, Away, Lost, ask, mark_versions
from tests.harness.nearcloud import Answered, NearCloud

HEAD = CallHead("POST", "/api/v1/namespaces?dryRun=All")


class Broken(NearCloud):
    """A link on which every call ends in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = 1.0) -> Answered:
        raise self.error


@pytest.mark.parametrize(
    ("error", "told", "code", "words"),
    [
        (LinkClosed("it was cut"), Away, 503, r"\(it was cut\), which POST /api/v1/namespaces needs"),
        (CallLost("no answer in time"), Lost, 504, "may have been done"),
        (TimeoutError(), TooManyRequests, 429, "nothing was done"),
        (TooManyRequests("too many"), TooManyRequests, 429, "too many"),
    ],
)
async def test_each_failure_says_whether_it_may_have_been_done(
    error: Exception, told: type[ApiError], code: int, words: str
) -> None:
    with pytest.raises(told, match=words) as caught:
        await ask(Broken(error), HEAD)
    assert caught.value.code == code


def test_the_clusters_versions_are_marked_on_objects_lists_and_items() -> None:
    item = {"metadata": {"resourceVersion": "5"}}
    assert mark_versions({"metadata": {"resourceVersion": "7"}, "items": [item, {"metadata": {}}]}) == {
        "metadata": {"resourceVersion": str(MARK + 7)},
        "items": [{"metadata": {"resourceVersion": str(MARK + 5)}}, {"metadata": {}}],
    }
    assert mark_versions({"metadata": {"resourceVersion": "odd"}}) == {"metadata": {"resourceVersion": "odd"}}
    assert mark_versions([1]) == [1]
    table = {"kind": "Table", "rows": [{"object": {"metadata": {"resourceVersion": "5"}}}, {"cells": []}]}
    assert mark_versions(table)["rows"][0] == {"object": {"metadata": {"resourceVersion": str(MARK + 5)}}}
    odd = {"items": 7, "rows": [{"object": {"metadata": {"resourceVersion": "5"}}}]}
    assert mark_versions(json.loads(json.dumps(odd))) == odd, "an object of a custom kind"
