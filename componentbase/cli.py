"""
What all commands have in common: flags, exit codes, the last line on stderr, and how a process stops.

Exit codes: 0 it did what was asked, a stop by signal included; 1 it could not; 2 it was asked wrongly (argparse).
Where a command fails, the last line on stderr says why: `cloudcore: error: ...`.

Invariants
    SIGTERM or SIGINT cancels the main task once and lets it clean up
    a process that was told to stop is gone STOP_WITHIN_S later, even where its event loop hangs
    a person never sees a traceback but for a bug
"""

import argparse
import asyncio
import datetime
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from componentbase import logs
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError as CommandError  # every command raises it, most import it from here

OK = 0
FAILED = 1
WRONG_USAGE = 2

STOP_WITHIN_S = 5.0  # what the commands promise for SIGTERM
IMPATIENCE_S = 1.0

logger = logging.getLogger(__name__)


# ---- flags


class _Parser(argparse.ArgumentParser):
    """Tells of a flag that there is not with the usage of the command that it was given to, not with that of all."""

    def parse_known_args(  # type: ignore[override]  # typeshed has four overloads for what namespace may be
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def new_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with an example, and whose commands' parsers are of its kind."""
    return _Parser(prog=prog, **_texts(description, example))  # type: ignore[arg-type]


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand with its example; the first sentence of the description stands in the list of commands."""
    summary = description.partition(". ")[0].rstrip(".")
    return commands.add_parser(name, help=summary, **_texts(description, example))  # type: ignore[arg-type]


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """For people or for machines: `output` is "text" or "json"."""
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="text by default")


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    """--log-format and --log-level, which configure_logs() obeys."""
    group = parser.add_argument_group("logs", "written to stderr")
    group.add_argument(
        "--log-format", choices=logs.FORMATS, default="text", help="text for people, json for collectors"
    )
    group.add_argument("--log-level", choices=logs.LEVELS, default="info", help="info by default")


def configure_logs(args: argparse.Namespace, fields: Mapping[str, object] | None = None) -> None:
    """Set logging up as the flags of add_log_flags() say; every line has these fields."""
    logs.configure(args.log_format, args.log_level, fields=fields)


def endpoint(text: str) -> Endpoint:
    """HOST:PORT as an argparse type."""
    return _endpoint(text, None)


def endpoint_like(usual_port: int) -> Callable[[str], Endpoint]:
    """HOST:PORT as an argparse type, with this port in the example for whoever writes none."""
    return lambda text: _endpoint(text, None, usual_port)


def endpoint_with(default_port: int) -> Callable[[str], Endpoint]:
    """HOST[:PORT] as an argparse type."""
    return lambda text: _endpoint(text, default_port)


def duration(text: str) -> datetime.timedelta:
    """30m, 12h, 7d, for argparse."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    if len(text) < 2 or text[-1] not in units or not text[:-1].isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f'"{text}" is no duration: write 30m, 12h or 7d')
    return datetime.timedelta(seconds=int(text[:-1]) * units[text[-1]])


def _endpoint(text: str, default_port: int | None, usual_port: int = 10000) -> Endpoint:
    try:
        return Endpoint.parse(text, default_port, usual_port)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _texts(description: str, example: str) -> dict[str, object]:
    lines = "\n".join(f"  {line}" for line in example.strip().splitlines())
    return {
        "description": description,
        "epilog": f"example:\n{lines}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,  # a flag added later must not change what a script's short form means
    }


# ---- running


def guard(prog: str, command: Callable[[], int | None]) -> int:
    """
    Run a command to its exit code, and say why where it fails.

    CommandError, of which ConfigError and FilesError are kinds, is for people: one line. Anything else that gets
    here is a bug: a traceback in the log, and a line that says so.
    """
    try:
        code = command() or OK
        sys.stdout.flush()
    except KeyboardInterrupt:
        return FAILED
    except Exception as exc:
        if isinstance(exc, BrokenPipeError) and _reader_has_gone():
            return FAILED
        for line in _explain(exc):
            print(f"{prog}: error: {line}", file=sys.stderr, flush=True)
        return FAILED
    else:
        return code


def run(
    main: Coroutine[object, object, int | None],
    *,
    prog: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    stop_within_s: float = STOP_WITHIN_S,
) -> int:
    """
    Run a process's main coroutine until it returns, fails or is told to stop; the exit code.

    SIGTERM or SIGINT cancels it. stop_within_s without an end, or a second ctrl-c, ends the process at once with
    code 1. To be called from the main thread, once.
    """
    stop = _Stop(prog, stop_within_s)

    async def supervised() -> int | None:
        task = asyncio.current_task()
        assert task is not None, "Runner.run makes a task"
        task.set_name(prog)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.on_signal, number, task)
        try:
            return await main
        except asyncio.CancelledError:
            if not stop.asked:
                raise
            return OK  # nothing is left to cancel: this is the outermost frame of the task

    def command() -> int | None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(supervised())

    try:
        return guard(prog, command)
    finally:
        stop.ended()


class _Stop:
    """Watches over a stop from a thread of its own, because the event loop may be what hangs."""

    def __init__(self, prog: str, within_s: float) -> None:
        self.prog = prog
        self.within_s = within_s
        self.asked = False
        self._asked_at = 0.0
        self._watchdog: threading.Timer | None = None

    def on_signal(self, number: signal.Signals, task: "asyncio.Task[object]") -> None:
        if self.asked:
            # A terminal's ctrl-c reaches a whole process group, whose parent may then send SIGTERM as well: only a
            # person who asks again, and not with the same keystroke, is impatient.
            if number == signal.SIGINT and time.monotonic() - self._asked_at > IMPATIENCE_S:
                self._exit("stopped by a second ctrl-c")
            return
        self.asked = True
        self._asked_at = time.monotonic()
        logger.info("stopping", extra={"signal": number.name})
        self._watchdog = threading.Timer(self.within_s, self._exit, [f"did not stop within {self.within_s:g} s"])
        self._watchdog.name = "stop-watchdog"
        self._watchdog.daemon = True
        self._watchdog.start()
        task.cancel(number.name)

    def ended(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()

    def _exit(self, why: str) -> None:
        print(f"{self.prog}: error: {why}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _reader_has_gone() -> bool:
    """Whether it is our stdout whose reader has gone, as `head` does. Python's own flush at exit must not ask again."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    poll = select.poll()
    poll.register(stdout, select.POLLOUT)
    if not any(events & select.POLLERR for _fd, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True


def _explain(exc: BaseException) -> list[str]:
    """The lines for a person, one for each thing that went wrong; a TaskGroup may bring several."""
    if isinstance(exc, BaseExceptionGroup):
        lines = [line for inner in exc.exceptions for line in _explain(inner)]
        return list(dict.fromkeys(lines))
    if isinstance(exc, CommandError):
        return [str(exc)]
    logger.critical("a bug: no code expected this exception", exc_info=exc)
    return [f"unexpected {type(exc).__name__}: {exc}"]
