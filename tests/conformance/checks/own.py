"""What is a node's own to say, with the cloud and without."""

from tests.conformance.checks.bench import Bench, names, refusal
from tests.conformance.contract import EVENT, LEASE, POD
from tests.conformance.seeds import HOLDER, NODE, RENEWALS


async def pod_status(bench: Bench) -> None:
    found = await bench.client.patch(POD, "p0", {"status": {"phase": "Running", "podIP": "10.0.0.1"}}, status=True)
    assert (found["status"]["phase"], found["status"]["podIP"]) == ("Running", "10.0.0.1")
    held = await bench.client.get(POD, "p0")
    assert (held["status"]["phase"], held["spec"]["nodeName"]) == ("Running", NODE)
    assert held["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


async def no_change(bench: Bench) -> None:
    """Else an operator that answers every event by a write would be told of its own, for ever."""
    status = {"status": {"message": f"said twice {bench.place}"}}
    first = await bench.client.patch(POD, "p1", status, status=True)
    again = await bench.client.patch(POD, "p1", status, status=True)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    held = await bench.client.get(POD, "p1")
    assert held["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def renew_lease(bench: Bench) -> None:
    lease = await bench.client.get(LEASE, "held")
    lease["spec"]["renewTime"] = "2026-01-01T00:00:00.500000Z"
    renewed = await bench.client.replace(LEASE, lease)
    stale = {**lease, "spec": {**lease["spec"], "renewTime": "2026-01-01T00:00:09.500000Z"}}
    async with refusal("Conflict"):
        await bench.client.replace(LEASE, stale)
    renewed["spec"]["renewTime"] = "2026-01-01T00:00:01.500000Z"
    await bench.client.replace(LEASE, renewed)
    assert (await bench.client.get(LEASE, "held"))["spec"]["renewTime"] == "2026-01-01T00:00:01.500000Z"


async def leader_election(bench: Bench) -> None:
    renewals = await bench.client.lead("held")
    assert len(renewals) >= RENEWALS
    assert renewals == sorted(renewals)
    lease = await bench.client.get(LEASE, "held")
    assert (lease["spec"]["holderIdentity"], lease["spec"]["renewTime"]) == (HOLDER, renewals[-1])


async def event(bench: Bench) -> None:
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": bench.namespace, "name": "p0"}
    rest = {"involvedObject": about, "reason": "Tested", "message": "by a client", "type": "Normal"}
    name = f"p0.{bench.place}"
    await bench.client.create(EVENT, EVENT.body(name, metadata={"namespace": bench.namespace}, **rest))
    assert (await bench.client.get(EVENT, name))["reason"] == "Tested"
    found = await bench.client.listing(EVENT, fields="involvedObject.name=p0,reason=Tested")
    assert name in names(found.items)
