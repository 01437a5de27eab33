"""The demo's processes, with real ones: kept running, stopped in order, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from demo import children
from demo.children import Child, ChildFailed, output_of, stop_all, tail

ROOT = str(Path(__file__).resolve().parent.parent)
ENVIRONMENT = os.environ | {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def child(folder: Path, code: str, name: str = "one") -> Child:
    return Child(name, ["-c", code], folder / f"{name}.log", ENVIRONMENT)


def up(folder: Path, name: str = "one", times: int = 1) -> Callable[[], Awaitable[bool]]:
    async def is_up() -> bool:
        log = folder / f"{name}.log"
        return log.exists() and log.read_text().count("up") >= times

    return is_up


async def poll(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pid_of(each: Child) -> int:
    assert each._process is not None
    return each._process.pid


async def test_a_child_starts_says_so_and_stops(tmp_path: Path) -> None:
    one = child(tmp_path, SLEEP)
    assert one.shown.state == "not started"
    await one.start()
    await one.until(up(tmp_path), 20)
    assert one.shown.state == "running"
    pid = pid_of(one)
    await one.stop(5)
    assert not is_alive(pid)
    assert one.shown.state == "stopped"


async def test_a_child_that_will_not_stop_is_ended_in_time(tmp_path: Path) -> None:
    one = child(tmp_path, STUBBORN)
    await one.start()
    await one.until(up(tmp_path), 20)
    began = time.monotonic()
    await one.stop(0.3)
    assert time.monotonic() - began < 3
    assert not is_alive(pid_of(one))


async def test_all_are_stopped_last_first_within_the_budget(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        f"def stop(*_): open({str(order)!r}, 'a').write(NAME); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(60)"
    )
    family = [child(tmp_path, f"NAME={name!r}\n{code}", name) for name in "abc"]
    family.append(child(tmp_path, STUBBORN, "s"))  # and the others have their shares all the same
    for each in family:
        await each.start()
    for each in family:
        await each.until(up(tmp_path, each.name), 20)
    began = time.monotonic()
    await stop_all(family, 8.0)
    assert time.monotonic() - began < 8
    assert order.read_text() == "cba"
    assert not any(is_alive(pid_of(each)) for each in family)


async def test_a_killed_child_is_started_again_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "EARLY_S", 0.0)
    one, told = child(tmp_path, SLEEP), list[str]()
    await one.start()
    await one.until(up(tmp_path), 20)
    keeping = asyncio.create_task(one.keep_running(told.append), name="keep")
    first = pid_of(one)
    os.kill(first, signal.SIGKILL)
    await poll(lambda: pid_of(one) != first)
    await one.until(up(tmp_path, times=2), 20)
    assert "one died of SIGKILL" in told[0]
    assert "started again" in told[0]
    assert one.shown.state == "running (restarted 1×)"
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    await one.stop(5)


async def test_a_child_that_cannot_start_ends_the_demo_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_BACKOFF_S", (0.0,))
    one = child(tmp_path, "import sys; print('port 1 is taken \\x1b[2J', file=sys.stderr); sys.exit(3)")
    await one.start()
    with pytest.raises(ChildFailed, match="one ended with exit code 3") as caught:
        await one.keep_running(lambda text: None)
    assert "port 1 is taken \ufffd[2J" in str(caught.value)
    assert str(tmp_path / "one.log") in str(caught.value)


async def test_waiting_for_a_child_ends_when_it_dies_or_dallies(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    one = child(tmp_path, "import sys; sys.exit(1)")
    await one.start()
    with pytest.raises(ChildFailed, match="exit code 1"):
        await one.until(never, 20)
    two = child(tmp_path, SLEEP, "two")
    await two.start()
    with pytest.raises(ChildFailed, match="did not get to work in time"):
        await two.until(never, 0.2)
    await two.stop(5)


async def test_a_killed_demo_leaves_nobody_behind(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from demo.children import Child\n"
        "async def main():\n"
        f"    one = Child('one', ['-c', {STUBBORN!r}], Path({str(tmp_path)!r}, 'one.log'), os.environ)\n"
        "    await one.start()\n"
        "    print(one._process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await poll(lambda: "up" in (tmp_path / "one.log").read_text())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await poll(lambda: not is_alive(pid))


async def test_the_output_of_a_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert await output_of(["-c", "print(input() + '!')"], ENVIRONMENT, log, stdin="secret") == "secret!\n"
    (tmp_path / "failing.py").write_text("import sys; print('last words', file=sys.stderr); sys.exit(2)")
    there = ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with pytest.raises(ChildFailed, match="failing join ended with exit code 2") as caught:
        await output_of(["-m", "failing", "join", "--token", "T"], there, log)
    assert "last words" in str(caught.value)
    assert "--token" not in str(caught.value)
    with pytest.raises(ChildFailed, match="in time"):
        await output_of(["-c", SLEEP], ENVIRONMENT, log, within_s=0.3)


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == []
    log.write_text("".join(f"line {number}\n" for number in range(10000)))
    assert tail(log, 2) == ["line 9998", "line 9999"]


async def test_a_long_log_is_set_aside_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LOG_BYTES", 10)
    (tmp_path / "one.log").write_text("x" * 11)
    one = child(tmp_path, SLEEP)
    await one.start()
    await one.until(up(tmp_path), 20)
    await one.stop(5)
    assert (tmp_path / "one.log.1").read_text() == "x" * 11
    assert (tmp_path / "one.log").read_text() == "up\n"
