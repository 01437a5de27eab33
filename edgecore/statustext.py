"""
`edgecore status`: what a running edgecore says of itself, in a few lines for a person.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from componentbase.words import counted

LAST_REFUSED = 5  # lines; with -o json all that are kept


def told(facts: Mapping[str, Any]) -> list[str]:
    """A few lines for a person."""
    if facts["connected"]:
        over = " over quic" if facts["transport"] == "quic" else ""
        link = f"connected to {facts['hub']}{over}, " + ("in sync" if facts["inSync"] else "catching up")
    else:
        link = f"not connected to {facts['hub']} ({facts['problem'] or 'dialling'})"
    synced_at = facts["lastSyncedAtMs"]
    if synced_at is None:
        age = "never was in sync: the local API answers 503"
    elif facts["inSync"]:
        age = "up to date"
    else:
        age = f"as of {max(0, _now_ms() - synced_at) // 1000} s ago"
    return [
        f"node     {facts['node']} (fairlead {facts['version']})",
        f"link     {link}",
        f"store    {counted(facts['objects'], 'object')}, {age}",
        f"reports  {facts['reportsWaiting']} waiting, {facts['reportsRefused']} refused by the cloud",
        f"mqtt     {_mqtt(facts)}",
        f"devices  {facts['devices']}, {facts['openWishes']} with a desired value that is not met",
        f"api      {facts['api'] or 'off'}",
        *_more(facts),
    ]


def _mqtt(facts: Mapping[str, Any]) -> str:
    mqtt = f"{facts['mqtt']} {'connected' if facts['mqttConnected'] else 'not connected'}"
    if facts["mqttProblem"] and not facts["mqttConnected"]:
        mqtt += f" ({facts['mqttProblem']})"
    if facts["mqttIgnored"]:
        mqtt += f", {counted(facts['mqttIgnored'], 'message')} ignored (--log-level debug says why)"
    if facts["mqttDenied"] or facts["mqttLoginsRefused"]:
        mqtt += f", {facts['mqttDenied']} publications and {facts['mqttLoginsRefused']} logins refused (see the log)"
    if facts["mqttMissed"]:
        mqtt += f", {facts['mqttMissed']} numbered updates never came"
    return mqtt


def _more(facts: Mapping[str, Any]) -> Iterator[str]:
    """Lines for what is not there on most days."""
    if facts["interests"] or facts["writesWaiting"]:
        yield (
            f"clients  read {counted(facts['interests'], 'selection')} of the cluster, "
            f"{facts['writesWaiting']} writes wait to go up"
        )
    if facts["secretsLost"]:
        yield (
            f"secrets  {facts['secretsLost']} cannot be read: the key that they were encrypted with is gone; "
            "they are asked of the cloud"
        )
    if facts["eventsWaiting"] or facts["eventsDropped"]:
        yield f"events   {facts['eventsWaiting']} waiting, {facts['eventsDropped']} dropped for later ones"
    for each in facts["contested"]:
        yield f"contest  {each} (several mappers claim it, the last word counts)"
    if (more := facts["devicesContested"] - len(facts["contested"])) > 0:
        yield f"contest  and {more} more"
    for each in reversed(facts["lastRefused"][-LAST_REFUSED:]):
        age_s = max(0, _now_ms() - each["at_ms"]) // 1000
        yield f"refused  {each['key']} {each['field']}, {age_s} s ago: {each['reason']}"
    if facts["certificateProblem"]:
        until = facts["certificateUntil"]
        yield f"problem  the certificate (until {until}) is not renewed: {facts['certificateProblem']}"
    if facts["storeProblem"]:
        yield f"problem  {facts['storeProblem']}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
