"""Asking a process over its socket file."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from apiserver.http import serve
from apiserver.messages import Request, Response, json_response
from componentbase.errors import CommandError
from componentbase.statusz import ask


async def asked(path: Path, answer: Callable[[Request], Awaitable[Response]]) -> object:
    import asyncio

    async with serve(answer, unix_path=path):
        return await asyncio.to_thread(ask, path, "prog")


async def test_it_gives_what_the_process_says(tmp_path: Path) -> None:
    async def answer(request: Request) -> Response:
        return json_response(200, {"path": request.path})

    assert await asked(tmp_path / "s", answer) == {"path": "/statusz"}


async def test_nonsense_is_told(tmp_path: Path) -> None:
    async def answer(_: Request) -> Response:
        return Response(200, [], b"hello")

    with pytest.raises(CommandError, match="no answer that can be read"):
        await asked(tmp_path / "s", answer)


async def test_a_refusal_is_told_in_the_process_words(tmp_path: Path) -> None:
    async def answer(_: Request) -> Response:
        return json_response(404, {"message": "there is no node x"})

    with pytest.raises(CommandError, match="prog refuses: there is no node x"):
        await asked(tmp_path / "s", answer)


def test_a_process_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="prog is not running with"):
        ask(tmp_path / "none", "prog")
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="prog is not running with"):
        ask(tmp_path / "file", "prog")
