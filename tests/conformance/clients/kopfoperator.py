"""
An operator as its users write them with kopf, run by `kopf run` on a node, against the node's own API.

It follows Widgets, and answers Pods whose status asks something. What its handlers were told goes to OPERATOR_LOG, a
line of JSON each.
"""

import json
import os
from pathlib import Path
from typing import Any

import kopf

LOG = Path(os.environ["OPERATOR_LOG"])
GROUP = ("example.com", "v1", "widgets")


def note(*said: Any) -> None:
    with LOG.open("a") as log:
        log.write(f"{json.dumps(said)}\n")


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.batching.error_delays = [0.2, 0.5, 1.0]
    note("started")


@kopf.on.create(*GROUP)
def created(name: str, spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    note("created", name, spec["size"])
    patch.status["phase"] = f"of size {spec['size']}"


@kopf.on.update(*GROUP, field="spec.size")
def updated(name: str, old: Any, new: Any, patch: kopf.Patch, **_: Any) -> None:
    note("updated", name, old, new)
    patch.status["phase"] = f"of size {new}"


@kopf.on.resume(*GROUP)
def resumed(name: str, spec: kopf.Spec, **_: Any) -> None:
    note("resumed", name, spec["size"])


@kopf.on.delete(*GROUP)
def deleted(name: str, **_: Any) -> None:
    note("deleted", name)


@kopf.on.event("pods")
def asked(name: str, status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    message = str(status.get("message", ""))
    if message.startswith("ask ") and status.get("reason") != message.replace("ask", "answer"):
        note("asked", name, message)
        patch.status["reason"] = message.replace("ask", "answer")
