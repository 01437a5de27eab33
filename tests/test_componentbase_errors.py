"""That every error for people is one kind, and costs nobody a library."""

import subprocess
import sys

import pytest

from componentbase import cli
from componentbase.config import ConfigError
from componentbase.errors import CommandError
from componentbase.files import FilesError, Locked, Unusable


@pytest.mark.parametrize("kind", [ConfigError, FilesError, Locked, Unusable, cli.CommandError])
def test_every_error_for_people_is_a_command_error(kind: type[Exception]) -> None:
    assert issubclass(kind, CommandError)


def test_command_line_needs_no_library() -> None:
    """A mapper installs neither PyYAML nor cryptography, and has a command line all the same."""
    code = "import sys, componentbase.cli, componentbase.files; print({'yaml', 'cryptography'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
