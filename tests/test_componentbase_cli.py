"""Commands: flags, exit codes, last lines, and how a process stops, tried on real processes with real signals."""

import argparse
import datetime
import os
import selectors
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from componentbase import cli
from componentbase.config import ConfigError
from componentbase.endpoints import Endpoint
from componentbase.files import Unusable

# ---- flags


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = cli.new_parser("edgecore", "The edge.", "edgecore run --data-dir ./data\nedgecore status")
    cli.add_log_flags(parser)
    parser.add_argument("--api", type=cli.endpoint)
    parser.add_argument("--cloud", type=cli.endpoint_with(10002))
    commands = parser.add_subparsers()
    cli.add_command(commands, "run", "Run the node. Until it is told to stop.", "edgecore run")
    return parser


def test_help_ends_with_an_example(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert text.endswith("example:\n  edgecore run --data-dir ./data\n  edgecore status\n")
    assert "Run the node\n" in text


def test_a_flag_that_there_is_not_is_told_with_the_usage_of_its_command(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--fast"])
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("usage: edgecore run ")
    assert told[-1] == "edgecore run: error: unrecognized arguments: --fast"


def test_flags_are_read(parser: argparse.ArgumentParser) -> None:
    args = parser.parse_args(["--log-format", "json", "--api", "[::1]:0", "--cloud", "hub"])
    assert (args.log_format, args.log_level) == ("json", "info")
    assert (args.api, args.cloud) == (Endpoint("::1", 0), Endpoint("hub", 10002))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--api", "hub"], 'edgecore: error: argument --api: "hub" has no port: write hub:10000, for example\n'),
        (["--cloud", "hub:x"], 'edgecore: error: argument --cloud: "hub:x" is not HOST:PORT'),
        (["--log-form=json"], "edgecore: error: unrecognized arguments: --log-form=json"),
        (["--log-level", "loud"], "edgecore: error: argument --log-level: invalid choice: 'loud'"),
    ],
)
def test_wrong_usage_is_code_2_and_one_line(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(argv)
    assert caught.value.code == cli.WRONG_USAGE
    assert says in capsys.readouterr().err


# ---- guard


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_what_a_command_returns_is_the_code(returned: int | None, code: int) -> None:
    assert cli.guard("x", lambda: returned) == code


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (cli.CommandError("port 10000 is taken"), "x: error: port 10000 is taken\n"),
        (ConfigError("edgecore.yaml", 7, "no"), "x: error: edgecore.yaml:7: no\n"),
        (Unusable(Path("/data"), "is not a directory"), "x: error: /data: is not a directory\n"),
        (
            ExceptionGroup("tasks", [cli.CommandError("one"), ExceptionGroup("", [cli.CommandError("two")])]),
            "x: error: one\nx: error: two\n",
        ),
        (ExceptionGroup("tasks", [cli.CommandError("one"), cli.CommandError("one")]), "x: error: one\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_for_people_is_one_line(error: Exception, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    assert cli.guard("x", command) == cli.FAILED
    assert capsys.readouterr().err == says


def test_bug_is_told_with_a_traceback_in_the_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def command() -> None:
        raise BrokenPipeError("a socket's, not stdout's")

    assert cli.guard("x", command) == cli.FAILED
    assert capsys.readouterr().err == "x: error: unexpected BrokenPipeError: a socket's, not stdout's\n"
    assert "Traceback" in caplog.text


# ---- processes


def script(body: str, stop_within_s: float) -> list[str]:
    """A process that prints `up` when signals are handled."""
    head = """
        import asyncio, signal, sys, time
        from componentbase import cli, logs
        logs.configure()
        def up(): print("up", flush=True)
    """
    tail = f'sys.exit(cli.run(main(), prog="x", stop_within_s={stop_within_s}))'
    return [sys.executable, "-c", "\n".join([textwrap.dedent(head), textwrap.dedent(body), tail])]


@contextmanager
def started(body: str, stop_within_s: float = 30.0) -> Iterator["subprocess.Popen[str]"]:
    """
    The process once it is up; killed and waited for at the end, whatever happened.

    stop_within_s: longer than anybody waits here, so that of those that do stop none is ended for being slow.
    """
    command = script(body, stop_within_s)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(timeout=20), "the process did not come up"
            assert process.stdout.readline() == "up\n", process.communicate()
            yield process
        finally:
            process.kill()


CLEAN = """
    async def main():
        try:
            up()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_cleanly_with_code_0(number: signal.Signals) -> None:
    with started(CLEAN) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (cli.OK, "cleaned up\n")
    assert f"stopping signal={number.name}" in err
    assert "Traceback" not in err


def test_signals_to_the_whole_group_and_from_the_parent_still_stop_cleanly() -> None:
    with started(CLEAN) as process:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        out, _err = process.communicate(timeout=20)
    assert (process.returncode, out) == (cli.OK, "cleaned up\n")


@pytest.mark.parametrize(
    "hang",
    ["await asyncio.Event().wait()", "time.sleep(60)", "await asyncio.to_thread(time.sleep, 60)"],
    ids=["clean-up", "loop", "thread"],
)
def test_process_that_hangs_while_stopping_is_ended(hang: str) -> None:
    body = f"""
    async def main():
        try:
            up()
            await asyncio.Event().wait()
        finally:
            {hang}
    """
    with started(body, stop_within_s=0.5) as process:
        before = time.monotonic()
        process.terminate()
        _out, err = process.communicate(timeout=20)
    assert process.returncode == cli.FAILED
    assert err.splitlines()[-1] == "x: error: did not stop within 0.5 s"
    assert time.monotonic() - before < 10


def test_second_ctrl_c_after_a_while_ends_it_at_once() -> None:
    body = """
    cli.IMPATIENCE_S = 0.0
    async def main():
        up()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("stopping", flush=True)
    """
    with started(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=20)
    assert process.returncode == cli.FAILED
    assert err.splitlines()[-1] == "x: error: stopped by a second ctrl-c"


def test_failure_of_a_task_is_the_last_line() -> None:
    body = """
    async def serve():
        raise cli.CommandError("127.0.0.1:10000 is taken")
    async def main():
        up()
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(), name="serve")
            group.create_task(asyncio.Event().wait(), name="wait")
    """
    with started(body) as process:
        _out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (cli.FAILED, "x: error: 127.0.0.1:10000 is taken\n")


def test_cancellation_that_nobody_asked_for_is_no_clean_stop() -> None:
    body = """
    async def main():
        up()
        raise asyncio.CancelledError
    """
    with started(body) as process:
        _out, err = process.communicate(timeout=20)
    assert process.returncode != cli.OK
    assert "CancelledError" in err


def test_main_may_return_its_own_code() -> None:
    body = """
    async def main():
        up()
        return 1
    """
    with started(body) as process:
        assert process.wait(timeout=20) == 1


def test_reader_that_goes_away_is_no_reason_for_a_traceback() -> None:
    code = "import sys; from componentbase import cli\nsys.exit(cli.guard('x', lambda: print('a' * 100_000)))"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (cli.FAILED, "")


def test_a_duration() -> None:
    assert cli.duration("90m") == datetime.timedelta(hours=1.5)
    for text in ("", "h", "1w", "1.5h"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no duration"):
            cli.duration(text)
