"""
`cloudcore run --workers N`: the one process that a service manager sees, and N hub processes that it keeps running.

The workers share the ports of the link and the join endpoint and nothing else: each is a replica
(docs/why/replicas.md). The supervisor has none of the hub's state. It asks its workers what it is asked, so that
status, figures and `cloudcore resync` are those of all.

Invariants
    before all workers served once, one that ends is an error of the whole: that is a wrong configuration
    after that a worker is started again, ever later while it does not stay up; the others are not touched
    when it ends, its workers have ended: by SIGTERM, by SIGKILL STOP_S later, by their standard input at the worst
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from apimachinery.errors import NotFound, Unavailable
from apiserver.http import Request, Response, json_response
from cloudhub.backoff import full_jitter_s
from cloudhub.listening import serve_metrics, serve_status
from cloudhub.settings import SOCKET_NAME, CloudConfig
from cloudhub.together import Worker, together
from cloudhub.worker import data_dir, has_terminal
from componentbase import cli, metrics, statusz
from componentbase.metrics import Metric
from componentbase.release import VERSION

logger = logging.getLogger(__name__)

STEADY_S = 60.0  # whoever was up for so long did not fail at what it does first
STOP_S = 4.0  # of the five seconds that SIGTERM promises
ASK_S = 3.0  # `cloudcore status` waits for 5 s


class _Child:
    """One worker's process, whichever it is at the moment."""

    def __init__(self, number: int, socket: Path) -> None:
        self.number = number
        self.socket = socket
        self.pid = 0
        self.starts = 0
        self.has_served = False


class Supervisor:
    """Keeps workers running; its status socket and its metrics speak for all of them."""

    def __init__(self, settings: CloudConfig, home: Path, command: Sequence[str]) -> None:
        """home: the data directory. command: starts a worker, its number still to be added."""
        self._settings = settings
        self._home = home
        self._command = command
        self._where: dict[str, str] = {}
        """Where they listen."""
        self._children = [
            _Child(number, data_dir(home, number) / SOCKET_NAME) for number in range(1, settings.workers + 1)
        ]

    async def run(self) -> None:
        """Serve until cancelled. Raises CommandError where the workers cannot begin."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # it is ignored under nohup
            loop = asyncio.get_running_loop()
            if has_terminal():  # it was closed
                loop.add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)
            else:  # a service manager's "look again"
                loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        async with contextlib.AsyncExitStack() as stack:
            await serve_status(stack, self._home / SOCKET_NAME, self._answer)
            if self._settings.metrics is not None:
                await serve_metrics(stack, self._settings.metrics, self._scraped)
            async with asyncio.TaskGroup() as tasks:
                for child in self._children:
                    tasks.create_task(self._keep(child), name=f"worker[{child.number}]")

    # Processes

    def _pass_on(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid and child.has_served:  # before that it has no handler, and looks anyway
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    async def _keep(self, child: _Child) -> NoReturn:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            ended = await self._run(child)
            if not self._have_all_served():
                raise cli.CommandError(f"worker {child.number} ended before it served: {ended}; its log says why")
            failures = 1 if loop.time() - began > STEADY_S else failures + 1
            delay_s = full_jitter_s(failures, random.random())  # noqa: S311 - spreads, guards nothing
            logger.warning(
                "worker ended, starting it again",
                extra={"worker": child.number, "ended": ended, "in_s": round(delay_s, 2)},
            )
            await asyncio.sleep(delay_s)

    async def _run(self, child: _Child) -> str:
        """One process to its end, which is told; it is taken along where this is cancelled."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(child.number),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # a terminal's signals come to the supervisor, which passes them on
        )
        child.pid, child.starts = process.pid, child.starts + 1
        try:
            assert process.stdout is not None, "it is a pipe"
            if line := await process.stdout.readline():
                self._serves(child, line)
            code = await process.wait()
        finally:
            if process.returncode is None:  # cancelled, or it said something that nobody understands
                await _end(process)
            child.pid = 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _serves(self, child: _Child, line: bytes) -> None:
        was_ready, child.has_served = self._have_all_served(), True
        self._where |= json.loads(line)
        if was_ready:
            logger.info("worker serves again", extra={"worker": child.number})
        elif self._have_all_served():
            logger.info("serving", extra={**self._where, "workers": len(self._children)})

    def _have_all_served(self) -> bool:
        return all(child.has_served for child in self._children)

    # What is asked

    async def _answer(self, request: Request) -> Response:
        """The status socket, as cloudhub.statuspage answers for one process."""
        match request.method, request.path:
            case "GET", "/statusz":
                return json_response(200, together(VERSION, await self._workers()))
            case "GET", "/metrics":
                return await self._figures()
            case "POST", "/resync":
                return await self._resync(request)
            case _:
                raise NotFound(f"{request.method} {request.path} is not served here")

    async def _scraped(self, request: Request) -> Response:
        """The metrics port: figures and nothing else."""
        if (request.method, request.path) != ("GET", "/metrics"):
            raise NotFound("only GET /metrics is served here")
        return await self._figures()

    async def _workers(self) -> list[Worker]:
        answers = await self._ask("GET /statusz")
        return [
            Worker(child.number, child.pid, child.starts, None if answer is None else json.loads(answer[1]))
            for child, answer in zip(self._children, answers, strict=True)
        ]

    async def _figures(self) -> Response:
        pages = [answer[1] for answer in await self._ask("GET /metrics") if answer is not None]
        page = metrics.merged([metrics.render(self._own()), *pages])
        return Response(200, [("content-type", metrics.CONTENT_TYPE)], page)

    def _own(self) -> Iterator[Metric]:
        for child in self._children:
            yield Metric("hub_worker_up", "Whether there is a process.", bool(child.pid), {"worker": str(child.number)})
        for child in self._children:
            labels = {"worker": str(child.number)}
            yield Metric("hub_worker_starts_total", "How often it was started.", child.starts, labels)

    async def _resync(self, request: Request) -> Response:
        """The worker that has the node comes last, for it ends the link, and the node may come back to any."""
        name = dict(request.query).get("node", "")
        nodes = together(VERSION, await self._workers())["nodes"]
        found = next((each for each in nodes if each["node"] == name), None)
        if found is None:
            raise NotFound(f'no node "{name}" has been here lately')
        others = [child for child in self._children if child.number != found["worker"]]
        asked = f"POST {request.target}"
        await self._ask(asked, others)
        (answer,) = await self._ask(asked, [child for child in self._children if child not in others])
        if answer is None:
            raise Unavailable(f"worker {found['worker']}, which has the node, does not answer")
        return json_response(200, {"connected": json.loads(answer[1])["connected"]})

    async def _ask(self, request: str, children: Sequence[_Child] | None = None) -> list[tuple[int, bytes] | None]:
        """What workers answer, all unless told otherwise, in their order: status and body; None for no answer."""

        def ask(child: _Child) -> tuple[int, bytes] | None:
            try:
                return statusz.fetch(child.socket, f"worker {child.number}", request, ASK_S)
            except cli.CommandError:
                return None

        async with asyncio.TaskGroup() as tasks:
            asking = [
                tasks.create_task(asyncio.to_thread(ask, child), name=f"ask[{child.number}]")
                for child in (self._children if children is None else children)
            ]
        return [task.result() for task in asking]


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
