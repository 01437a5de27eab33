"""
`cloudcore status`: what a running hub says of itself, in a few lines for a person.

A node and an apiserver chose some of the names in it, and none of them may steer the terminal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apimachinery.keys import Node
from componentbase.logs import one_line
from componentbase.words import counted

LAST_REFUSED = 5  # lines; with -o json all that are kept


def told(facts: Mapping[str, Any]) -> list[str]:
    """A few lines for a person."""
    nodes: Sequence[Mapping[str, Any]] = facts["nodes"]
    connected = [node for node in nodes if node["connected"]]
    waiting = [each for each in facts["resources"] if not each["synced"] or each["problem"]]
    lines = [
        f"cloudcore  fairlead {facts['version']}",
        f"apiserver  {facts['apiserver']}, {counted(facts['objects'], 'object')} of "
        f"{counted(len(facts['resources']), 'resource')}",
        f"link       {facts['link'] or 'not listening: the apiserver is not fully known yet'}",
        *([f"quic       {facts['quic']}"] if facts["quic"] else []),
        f"join       {facts['join'] or 'not listening'}",
        *([f"signer     {facts['signer']}"] if facts["signer"] else []),
        f"joins      {_joins(facts['joins'])}",
        f"reports    {facts['reports']['reports_taken']} taken, {facts['reports']['reports_refused']} refused",
    ]
    if "workers" in facts:
        lines.append(f"workers    {'; '.join(_worker(each) for each in facts['workers'])}")
    interests = sum(node["interests"] for node in nodes)
    if interests or facts["calls"]:
        asked = [each["resource"] for each in facts["resources"] if each["asked"]]
        refused = sum(node["interests_refused"] for node in nodes)
        lines.append(
            f"interest   {counted(interests, 'selection')}, {refused} not granted"
            + (f"; watched for nodes: {', '.join(asked)}" if asked else "")
        )
        codes = ", ".join(f"{count} x {code}" for code, count in facts["calls"].items())
        lines.append(f"calls      {codes or 'none'}")
    if facts["problem"]:
        lines.append(f"problem    {facts['problem']}")
    lines += [f"problem    {each['resource']}: {each['phase']} {each['problem']}".rstrip() for each in waiting]
    for each in facts["lastRefused"][: -LAST_REFUSED - 1 : -1]:
        told = f"refused    {each['key']} {each['field']} of {each['node']}: {each['reason']}"
        lines.append(one_line(told))  # a node chose these names
    for each in facts["banned"]:
        since = f" since {each['since']}" if each["since"] else ""
        lines.append(one_line(f"banned     {each['node']}{since}" + (f": {each['reason']}" if each["reason"] else "")))
    lines += [
        f"cloned     {each['node']}: its certificate is used from two places ({', '.join(each['addresses'])}), seen "
        f"{each['times']} times, last at {each['last']}"
        for each in facts["clones"]
    ]
    lines.append(f"nodes      {len(connected)} connected, {sum(bool(node['synced']) for node in connected)} in sync")
    for node in nodes:
        state = "in sync" if node["synced"] else f"{node['dirty']} to send"
        by = f" at worker {node['worker']}" if "worker" in node else ""
        over = " over quic" if node["transport"] == "quic" else ""
        where = f"{node['remote']}{over}{by}, {state}" if node["connected"] else "away"
        refused = f", refused {counted(node['refused'], 'object')}" if node["refused"] else ""
        lines.append(f"  {Node(node['node']):<20} {where}{refused}")
    return lines


def _joins(joins: Mapping[str, Any]) -> str:
    refused: Mapping[str, int] = joins["refused"]
    why = ", ".join(f"{count} {reason}" for reason, count in refused.items())
    counts = f"{joins['joined']} joined, {joins['renewed']} renewed, {sum(refused.values())} refused"
    return f"{counts} ({why})" if why else counts


def _worker(worker: Mapping[str, Any]) -> str:
    restarts = f", started {worker['starts']} times" if worker["starts"] > 1 else ""
    state = counted(worker["nodes"], "node") if worker["serving"] else "not serving"
    return f"{worker['worker']}: {state}{restarts}"
