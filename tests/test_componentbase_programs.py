"""The console scripts: each starts its program, or says which extra it lacks."""

import subprocess
import sys
import tomllib

import pytest

from componentbase import programs
from tests.house import ROOT

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def started(script: str, *, without: str = "") -> subprocess.CompletedProcess[str]:
    """As the script that pip makes, with --help, in an environment that lacks a package."""
    module, _, function = SCRIPTS[script].partition(":")
    hidden = f"sys.modules[{without!r}] = None; " if without else ""  # as Python has it for what cannot be imported
    code = f"import sys; {hidden}sys.argv = [{script!r}, '--help']; from {module} import {function} as main; main()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_starts_its_program(script: str) -> None:
    done = started(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script}")


@pytest.mark.parametrize(
    ("script", "without", "extra"),
    [
        ("cloudcore", "msgspec", "cloud"),
        ("mapper", "paho", "mapper"),
        ("apiserver", "sqlalchemy", "apiserver"),
    ],
)
def test_without_its_extra_a_program_says_which_it_is(script: str, without: str, extra: str) -> None:
    done = started(script, without=without)
    assert done.returncode == 1
    said = f"{script}: error: {without} is not installed here: pip install 'fairlead[{extra}]' has all that it needs\n"
    assert done.stderr == said


def test_a_module_of_our_own_that_is_missing_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        programs._start("cloudcore", "cloudhub.nothing", "cloud")
