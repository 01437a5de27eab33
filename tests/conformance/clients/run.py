"""
One client, in a process of its own, through all its checks at one place.

    python -m tests.conformance.clients.run CLIENT PLACE NAMESPACE FEATURE...

It knows the API by KUBECONFIG, as any client. After each check it prints a line of JSON: the feature, how long it took,
and what was wrong, or nothing.
"""

import asyncio
import importlib
import inspect
import json
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType

from tests.conformance.checks.bench import Bench, refused_for_want_of_the_cloud
from tests.conformance.checks.every import CHECKS
from tests.conformance.contract import Client
from tests.conformance.matrix import KUBECTLS, Cell

MODULES = {
    **dict.fromkeys(KUBECTLS, "kubectlclient"),
    "kubernetes": "officialclient",
    "kubernetes_asyncio": "asyncioclient",
    "lightkube": "lightkubeclient",
    "kr8s": "kr8sclient",
}
CHECK_S = 30  # for one check; most take a tenth of a second


def _too_long(_: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done within {CHECK_S} s")


def main() -> None:
    signal.signal(signal.SIGALRM, _too_long)
    asyncio.run(_all_checks(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))


async def _all_checks(name: str, place: str, namespace: str, features: Sequence[str]) -> None:
    opened = importlib.import_module(f"tests.conformance.clients.{MODULES[name]}").open_client(name, namespace)
    client: Client = await opened if inspect.isawaitable(opened) else opened
    bench = Bench(client, name, place, namespace)
    for feature in features:
        began = time.monotonic()
        problem = await _judged(bench, feature)
        took_s = round(time.monotonic() - began, 3)
        print(json.dumps({"feature": feature, "took_s": took_s, "problem": problem}), flush=True)
    await client.close()


async def _judged(bench: Bench, feature: str) -> str:
    """What is wrong, with where; empty where nothing is."""
    check = CHECKS[feature]
    signal.alarm(CHECK_S + 2)  # for a client that blocks
    try:
        async with asyncio.timeout(CHECK_S):
            if Cell(bench.place, bench.name, feature).is_refused:
                await refused_for_want_of_the_cloud(check, bench)
            else:
                await check(bench)
    except Exception:  # whatever a client raises is a judgement, and the next check is another
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


if __name__ == "__main__":
    main()
