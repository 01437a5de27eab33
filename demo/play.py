"""
The order in which things start, and what is shown while they run.

Each step waits until the one before it works, by asking for the work itself and never by waiting a while.
What a step leaves behind is found by the next start: the CA and the token's traces in the apiserver, the
edge's identity in its directory, the devices in the API.
"""

import asyncio
import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from apimachinery.errors import ApiError
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.resources import DEVICE_MODELS, DEVICES, NAMESPACES, NODES
from cloudhub.apiclient import ApiClient, KubeconfigError
from componentbase.files import lock_dir, open_private_dir
from demo import account, apply, guide
from demo.children import Child, output_of, stop_all
from demo.screen import Screen
from demo.state import HOST, State, free_ports
from demo.table import Snapshot, lines

NODE = "edge-1"
"""The node that the manifests put their devices on."""
STOP_WITHIN_S = 4.0  # ctrl-c promises five seconds in all
START_WITHIN_S = 60.0  # a small machine imports Python for seconds, and these are six processes
REFRESH_S = 1.0

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = Path(__file__).resolve().parent / "manifests"
FIRST_MANIFESTS = ("thermostat.yaml", "host.yaml")


class Demo:
    """One run in one data directory."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        self._state = State.load(folder)
        self._ports = free_ports(self._state.ports)
        self._children: list[Child] = []
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
        }

    async def run(self) -> None:
        """Start, show, and when cancelled stop. Raises CommandError when something cannot be made to run."""
        (self._folder / "logs").mkdir(mode=0o700, exist_ok=True)
        self._tell_ports()
        try:
            async with await self._cloud() as client:
                await self._edge()
                await self._devices(client)
                await self._watch(client)
        finally:
            await self._stop()

    # ---- starting

    async def _cloud(self) -> ApiClient:
        ports, kubeconfig = self._ports, self._kubeconfig
        apiserver = await self._start(
            "apiserver",
            ["-m", "apiserver.dev", "run", "--data-dir", self._dir("apiserver"), "--listen", _at(ports.apiserver)],
        )
        # Before the process has written it, the file is missing or a former run's, with a former port in it.
        found: list[ApiClient] = []

        async def answers() -> bool:
            with contextlib.suppress(KubeconfigError, ApiError):
                client = ApiClient.from_kubeconfig(kubeconfig)
                try:
                    await client.list(NAMESPACES)
                except BaseException:
                    await client.close()
                    raise
                found.append(client)
            return bool(found)

        await apiserver.until(answers, START_WITHIN_S)
        try:
            crds = await output_of(["-m", "cloudcore", "crds"], self._environment, self._log("cloudcore-crds"))
            await apply.define(found[0], apply.parse(crds))
            await account.make(found[0], kubeconfig, self._hub_kubeconfig)
            command = f"run --listen {_at(ports.link)} --join-listen {_at(ports.join)}".split()
            command += ["--kubeconfig", str(self._hub_kubeconfig), "--data-dir", self._dir("cloudcore")]
            cloudcore = await self._start("cloudcore", ["-m", "cloudcore", *command])
            await cloudcore.until(lambda: _accepts(ports.join), START_WITHIN_S)
            default = await found[0].get(ObjectKey(NAMESPACES, "", "default"))
            self._state.meet(default["metadata"]["uid"])
        except BaseException:
            await found[0].close()
            raise
        return found[0]

    async def _edge(self) -> None:
        ports, state = self._ports, self._state
        home = Path(self._dir(NODE))
        if not (home / "edgecore.yaml").exists() or state.joined_link != ports.link:
            await self._join(home)
        command = f"run --mqtt embedded --mqtt-listen {_at(ports.mqtt)} --api {_at(ports.api)}".split()
        await self._start("edgecore", ["-m", "edgecore", *command, "--data-dir", str(home)])
        for driver in ("simulated", "host"):
            url = f"mqtt://{_at(ports.mqtt)}"
            await self._start(f"mapper-{driver}", ["-m", "mappers.runtime", "run", driver, "--mqtt", url])

    async def _join(self, home: Path) -> None:
        """The way any machine joins: a token made in the cloud, carried over, used once."""
        kubeconfig = str(self._kubeconfig)
        # --replace: the node may be one already, at the address that the cloud had before.
        command = ["-m", "cloudcore", "token", "create", "--kubeconfig", kubeconfig, "--single-use"]
        command += ["--replace", "--nodes", NODE]
        token = await output_of(command, self._environment, self._log("cloudcore-token"))
        command = ["-m", "edgecore", "join", "--cloud", _at(self._ports.join), "--token", "-"]  # ps shows arguments
        command += ["--node", NODE, "--data-dir", str(home)]
        if (home / "edgecore.yaml").exists():
            command.append("--force")
        await output_of(command, self._environment, self._log("edgecore-join"), stdin=token)
        self._state.joined_link = self._ports.link
        self._state.save(self._folder)

    async def _devices(self, client: ApiClient) -> None:
        if not self._state.has_devices:
            await apply.create_missing(client, _first_objects())
            self._state.has_devices = True
        self._state.ports = self._ports
        self._state.save(self._folder)

    async def _start(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, self._log(name), self._environment)
        self._children.append(child)
        self._screen.say(f"starting {name}")
        await child.start()
        return child

    # ---- running

    async def _watch(self, client: ApiClient) -> None:
        self._screen.say(guide.text(self._folder, self._kubeconfig, self._ports, MANIFESTS, _first_objects()))
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(child.keep_running(self._screen.say), name=f"child[{child.name}]")
            group.create_task(self._show(client), name="show")

    async def _show(self, client: ApiClient) -> None:
        seen = Snapshot((), (), ())
        while True:
            note = ""
            try:
                seen = Snapshot(*[await _all(client, resource) for resource in (NODES, DEVICES, DEVICE_MODELS)])
            except ApiError as exc:
                note = f"(as it was; {exc})"
            shown = lines(seen, [child.shown for child in self._children], datetime.datetime.now(datetime.UTC))
            self._screen.draw([*shown, note] if note else shown)
            await asyncio.sleep(REFRESH_S)

    async def _stop(self) -> None:
        if self._children:
            self._screen.say("stopping")
        await stop_all(self._children, STOP_WITHIN_S)

    # ---- places

    @property
    def _kubeconfig(self) -> Path:
        return self._folder / "apiserver" / "kubeconfig"

    @property
    def _hub_kubeconfig(self) -> Path:
        """With the rights of cloudcore's account, and no more."""
        return self._folder / "cloudcore.kubeconfig"

    def _dir(self, name: str) -> str:
        return str(self._folder / name)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _tell_ports(self) -> None:
        for name, port in vars(self._ports).items():
            wanted = getattr(self._state.ports, name)
            if port != wanted:
                self._screen.say(f"port {wanted} is taken; {name} gets {port}")


async def play(folder: Path) -> None:
    """Run the demo in a data directory until cancelled. Raises CommandError."""
    folder = open_private_dir(folder)
    with lock_dir(folder):
        # A closed terminal is a stop like any other; componentbase.cli listens for this one.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)
        await Demo(folder, Screen(sys.stdout)).run()


def _first_objects() -> list[dict[str, JSON]]:
    return [value for name in FIRST_MANIFESTS for value in apply.read(MANIFESTS / name)]


async def _all(client: ApiClient, resource: Resource) -> list[dict[str, JSON]]:
    objects, _ = await client.list(resource)
    return [item.parse() for item in objects]


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


def _at(port: int) -> str:
    return f"{HOST}:{port}"
