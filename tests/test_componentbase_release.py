"""The release is told alike by the code and by the distribution."""

import importlib.metadata

from componentbase.release import VERSION


def test_the_distribution_has_the_codes_version() -> None:
    assert importlib.metadata.version("fairlead") == VERSION
