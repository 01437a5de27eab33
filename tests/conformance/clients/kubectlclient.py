"""Stock kubectl, a process for each verb, its answers read as a person's script would."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from tests.conformance.contract import Body, Client, Event, Kind, Listed, Refused
from tests.conformance.matrix import KUBECTL_NEW

_ERROR = re.compile(r"Error from server \((\w+)\): (.*)", re.DOTALL)
_OTHERWISE = (
    (re.compile(r"(the server is currently unable to handle the request.*|.*not connected to the cloud.*)", re.DOTALL),
     "ServiceUnavailable"),
    (re.compile(r'(The \w+ ".*" is invalid: .*)', re.DOTALL), "Invalid"),
    (re.compile(r"(.*conflict.* with .*)", re.DOTALL), "Conflict"),
    (re.compile(r"(.*unable to parse.*)", re.DOTALL), "BadRequest"),
)  # fmt: skip
"""What kubectl says in words of its own, and the reason it had it from."""


class Kubectl(Client):
    """See tests.conformance.contract.Client."""

    def __init__(self, binary: str, name: str, namespace: str) -> None:
        self._binary = binary
        self._is_new = name == KUBECTL_NEW
        self._namespace = namespace

    async def _run(self, *arguments: str, stdin: str = "", fine: tuple[int, ...] = (0,)) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            *(self._binary, "-n", self._namespace, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = (each.decode() for each in await process.communicate(stdin.encode()))
        if process.returncode not in fine:
            raise _refusal(error)
        return out, error

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        out, _ = await self._run(*arguments, stdin=stdin, fine=(0, 1) if arguments[0] == "diff" else (0,))
        if arguments[0] == "diff" and not out:
            await self._run(*arguments, stdin=stdin)  # which raises what was said
        return out

    async def lines(self, *arguments: str) -> AsyncGenerator[str, None]:
        async with self._following(*arguments, with_log=True) as stream:
            async for line in stream:
                yield line.decode()

    @contextlib.asynccontextmanager
    async def _following(self, *arguments: str, with_log: bool = False) -> AsyncGenerator[asyncio.StreamReader, None]:
        process = await asyncio.create_subprocess_exec(
            *(self._binary, "-n", self._namespace, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if with_log else asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None, "it was asked for"
        try:
            yield process.stdout
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _json(self, *arguments: str, stdin: str = "") -> Any:
        out, _ = await self._run(*arguments, "-o", "json", stdin=stdin)
        return json.loads(out)

    async def get(self, kind: Kind, name: str) -> Body:
        found: Body = await self._json("get", kind.argument, name)
        return found

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        options = [f"--selector={labels}", f"--field-selector={fields}", *(["-A"] if everywhere else [])]
        return Listed((await self._json("get", kind.argument, *options))["items"], "")

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        out, log = await self._run("get", kind.argument, f"--chunk-size={size}", "-o", "json", "-v=6")
        assert len(re.findall(r"[?&]continue=", log)) > 1, log
        return [Listed(json.loads(out)["items"], "")]

    async def watch(
        self, kind: Kind, version: str = "", *, timeout_s: int = 0, bookmarks: bool = False, initial: bool = False
    ) -> AsyncGenerator[Event, None]:
        assert (version, timeout_s, bookmarks, initial) == ("", 0, False, False), "the matrix says that it has none"
        decoder, text = json.JSONDecoder(), ""
        async with self._following("get", kind.argument, "-w", "--output-watch-events", "-o", "json") as stream:
            while data := await stream.read(65536):
                text = (text + data.decode()).lstrip()
                while text:
                    try:
                        value, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:].lstrip()
                    yield Event(value["type"], value["object"])

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        made: Body = await self._json(
            "create", "-f", "-", *(["--dry-run=server"] if dry_run else []), stdin=json.dumps(body)
        )
        return made

    async def create_strictly(self, kind: Kind, body: Body) -> Body:
        made: Body = await self._json("create", "-f", "-", "--validate=strict", stdin=json.dumps(body))
        return made

    async def replace(self, kind: Kind, body: Body) -> Body:
        replaced: Body = await self._json("replace", "-f", "-", stdin=json.dumps(body))
        return replaced

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        if status and not self._is_new:
            return await self._put_status(kind, name, patch)
        below = ["--subresource=status"] if status else []
        patched: Body = await self._json("patch", kind.argument, name, f"--type={how}", "-p", json.dumps(patch), *below)
        return patched

    async def _put_status(self, kind: Kind, name: str, patch: Mapping[str, Any]) -> Body:
        """The only way to a status before --subresource came with 1.24."""
        body = await self.get(kind, name)
        for part, value in patch.items():
            body[part] = {**body.get(part, {}), **value}
        path = f"{kind.path(self._namespace, name)}/status"
        out, _ = await self._run("replace", "--raw", path, "-f", "-", stdin=json.dumps(body))
        replaced: Body = json.loads(out)
        return replaced

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        options = ["--server-side", f"--field-manager={manager}", *(["--force-conflicts"] if force else [])]
        applied: Body = await self._json("apply", "-f", "-", *options, stdin=json.dumps(body))
        return applied

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        assert preconditions is None, "the matrix says that it has none"
        await self._run("delete", kind.argument, name, "--wait=false")

    async def delete_all(self, kind: Kind, labels: str) -> None:
        await self._run("delete", kind.argument, "-l", labels, "--wait=false")

    async def wait(self, kind: Kind, name: str, condition: str) -> None:
        await self._run("wait", f"{kind.argument}/{name}", f"--for=condition={condition}", "--timeout=15s")

    async def table(self, kind: Kind) -> tuple[list[str], list[list[str]]]:
        out, _ = await self._run("get", kind.argument)
        header, *rows = [line.split() for line in out.splitlines()]
        return header, rows

    async def raw(self, path: str) -> Any:
        out, _ = await self._run("get", "--raw", path)
        return json.loads(out)

    async def kinds(self) -> set[str]:
        out, _ = await self._run("api-resources", "-o", "name", "--cached=false")
        return set(out.split())

    async def version(self) -> str:
        return str((await self._json("version"))["serverVersion"]["gitVersion"])

    async def can_i(self, verb: str, kind: Kind) -> bool:
        out, _ = await self._run("auth", "can-i", verb, kind.argument, fine=(0, 1))
        if out.strip() not in ("yes", "no"):
            await self._run("auth", "can-i", verb, kind.argument)  # which raises what was said
        return out.strip() == "yes"

    async def token(self, account: str) -> str:
        out, _ = await self._run("create", "token", account)
        return out.strip()


def _refusal(text: str) -> Refused:
    found = _ERROR.search(text)
    if found is not None:
        return Refused(found[1], found[2].strip())
    for pattern, reason in _OTHERWISE:
        found = pattern.search(text)
        if found is not None:
            return Refused(reason, found[1].strip())
    return Refused("in words of its own", text.strip())


def open_client(name: str, namespace: str) -> Kubectl:
    return Kubectl(os.environ["CONFORMANCE_KUBECTL"], name, namespace)
