"""
`edgecore device history`: what a property was in the last hours, plotted.

A running edgecore is asked, for the latest is in its memory; one that is stopped leaves its file to be read.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from componentbase import cli, statusz
from componentbase.files import Locked, lock_dir
from edgecore.settings import PROG, SOCKET_NAME, STORE_NAME


def run(args: argparse.Namespace) -> int:
    """The command; its exit code."""

    def command() -> None:
        from devicetwin.drawing import history_lines

        now_ms = time.time_ns() // 1_000_000
        since_ms = now_ms - round(args.since.total_seconds() * 1000)
        device = ObjectKey(DEVICES, args.namespace, args.name)
        try:
            if not (args.data_dir / STORE_NAME).exists():
                raise cli.CommandError(f"{args.data_dir} is not a node's directory: there is no {STORE_NAME}")
            with lock_dir(args.data_dir):
                facts = _in_file(args.data_dir / STORE_NAME, device, args.property, since_ms)
        except Locked:
            asked = {"namespace": args.namespace, "name": args.name, "property": args.property, "since": since_ms}
            facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG, f"GET /history?{urlencode(asked)}")
        if args.output == "json":
            print(json.dumps(facts, indent=2))
        else:
            size = shutil.get_terminal_size((80, 24))
            print("\n".join(history_lines(facts, since_ms, now_ms, size.columns, sys.stdout.encoding or "")))

    return cli.guard(PROG, command)


def _in_file(path: Path, device: ObjectKey, name: str, since_ms: int) -> Mapping[str, Any]:
    from devicetwin.drawing import history_facts
    from metamanager.errors import StoreError
    from metamanager.history import read_file

    try:
        recorded, documents = read_file(path, device, name, since_ms, twin_prefix(device))
    except StoreError as exc:
        raise cli.CommandError(str(exc)) from exc
    return history_facts(device, name, recorded.samples, recorded.properties, documents)


def twin_prefix(device: ObjectKey) -> str:
    """What the documents of a device's twin are called in the store, or begin with."""
    from devicetwin.documents import twin_name
    from devicetwin.wire import id_of

    return twin_name(id_of(device))
