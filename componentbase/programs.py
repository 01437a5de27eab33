"""
Where the console scripts begin: a program whose extra was not installed says so, in one line.

Every installation has all four scripts, for one distribution has all programs; what each of them needs is in its
extra. Nothing is imported here but the one program that is started.
"""

import importlib
import sys
from typing import NoReturn


def cloudcore() -> NoReturn:
    """The console script."""
    _start("cloudcore", "cloudcore", "cloud")


def edgecore() -> NoReturn:
    """The console script."""
    _start("edgecore", "edgecore.__main__", "edge")


def mapper() -> NoReturn:
    """The console script."""
    _start("mapper", "mappers.runtime", "mapper")


def apiserver() -> NoReturn:
    """The console script."""
    _start("apiserver", "apiserver.dev", "apiserver")


def _start(prog: str, module: str, extra: str) -> NoReturn:
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as exc:
        from importlib.util import find_spec  # on the edge every import is memory

        package = (exc.name or module).partition(".")[0]
        if find_spec(package) is not None:
            raise  # what is there lacks a part: a bug, or half an installation
        sys.exit(
            f"{prog}: error: {package} is not installed here: pip install 'fairlead[{extra}]' has all that it needs"
        )
    sys.exit(main())
