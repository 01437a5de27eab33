"""A command of edgecore in the test's own process."""

import sys

import pytest

from edgecore.__main__ import main


def edgecore(*arguments: str) -> int:
    """What it exits with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgecore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return code
