"""
What several workers say of themselves, told as if they were one hub: `cloudcore status` of all of them.

Invariants
    every node that any worker knows is there once, with the worker that it is connected to, if it is
    a worker that does not answer is told, and takes nothing away from what the others say

Pure state: the answers come from cloudhub/supervisor.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

Facts = Mapping[str, Any]
"""What GET /statusz of one process gives."""


class Worker(NamedTuple):
    """One worker, as its supervisor knows it."""

    number: int
    pid: int
    """0 while there is no process."""
    starts: int
    """How often it was started."""
    facts: Facts | None
    """None where it does not answer."""


def together(version: str, workers: Iterable[Worker]) -> dict[str, Any]:
    """The facts of all: those of one process, with "workers" besides and a "worker" in each node."""
    workers = list(workers)
    answers = [(each.number, each.facts) for each in workers if each.facts is not None]
    facts = [said for _, said in answers]
    problems = [f"worker {number}: {said['problem']}" for number, said in answers if said["problem"]]
    problems += [f"worker {each.number} does not answer" for each in workers if each.facts is None]
    return {
        "version": version,
        "apiserver": _first(facts, "apiserver"),
        "problem": "; ".join(problems),
        "link": _first(facts, "link"),
        "quic": _first(facts, "quic"),
        "join": _first(facts, "join"),
        "signer": _first(facts, "signer"),
        "objects": max((said["objects"] for said in facts), default=0),
        "resources": _resources(facts),
        "calls": _sums(said["calls"] for said in facts),
        "joins": _joins(said["joins"] for said in facts),
        "reports": {"reports_taken": 0, "reports_refused": 0} | _sums(said["reports"] for said in facts),
        "lastRefused": _newest_last(said["lastRefused"] for said in facts),
        "banned": _banned(facts),
        "clones": _clones(facts),
        "nodes": _nodes(answers),
        "workers": [_line(each) for each in workers],
    }


def _line(worker: Worker) -> dict[str, Any]:
    facts = worker.facts
    return {
        "worker": worker.number,
        "pid": worker.pid,
        "starts": worker.starts,
        "serving": facts is not None and bool(facts["link"]),
        "nodes": 0 if facts is None else sum(bool(node["connected"]) for node in facts["nodes"]),
    }


def _first(facts: Iterable[Facts], name: str) -> str:
    return next((str(said[name]) for said in facts if said[name]), "")


def _sums(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counted:
        total.update(each)
    return dict(total)


def _joins(counted: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    counted = list(counted)
    plain = {name: sum(each[name] for each in counted) for name in ("joined", "renewed", "waiting")}
    return {**plain, "refused": _sums(each["refused"] for each in counted)}


def _resources(facts: Iterable[Facts]) -> list[dict[str, Any]]:
    """Each resource once, as the worker has it that has the most trouble with it; requests are added up."""
    found: dict[str, dict[str, Any]] = {}
    for said in facts:
        for each in said["resources"]:
            other = found.setdefault(each["resource"], {**each, "lists": 0, "watches": 0})
            counts = {name: other[name] + each[name] for name in ("lists", "watches")}
            worse = max(other, each, key=lambda it: (not it["synced"], bool(it["problem"])))
            found[each["resource"]] = {**worse, **counts}
    return list(found.values())


def _newest_last(refusals: Iterable[list[Any]]) -> list[Any]:
    """They have no time, but an order in each worker: the last ones of all come last."""
    columns = zip_longest(*(reversed(each) for each in refusals))
    return [item for column in columns for item in column if item is not None][::-1]


def _banned(facts: Iterable[Facts]) -> list[dict[str, Any]]:
    """All are told the same, sooner or later."""
    found = {each["node"]: each for said in facts for each in said["banned"]}
    return [found[name] for name in sorted(found)]


def _clones(facts: Iterable[Facts]) -> list[dict[str, Any]]:
    """Each node once; a pair shows itself to the worker that it comes to."""
    found: dict[str, dict[str, Any]] = {}
    for said in facts:
        for each in said["clones"]:
            other = found.get(each["node"], each)
            found[each["node"]] = {
                "node": each["node"],
                "times": each["times"] + (0 if other is each else other["times"]),
                "since": min(each["since"], other["since"]),
                "last": max(each["last"], other["last"]),
                "addresses": list(dict.fromkeys([*other["addresses"], *each["addresses"]])),
            }
    return [found[name] for name in sorted(found)]


def _nodes(answers: Iterable[tuple[int, Facts]]) -> list[dict[str, Any]]:
    """A node that changed workers is remembered by those that it left."""
    found: dict[str, dict[str, Any]] = {}
    for number, said in answers:
        for node in said["nodes"]:
            other = found.get(node["node"])
            if other is None or (node["connected"], node["synced"]) > (other["connected"], other["synced"]):
                found[node["node"]] = {**node, "worker": number}
    return [found[name] for name in sorted(found)]
