"""The rights of the hub as docs/operations.md has them: what an admin would apply."""

import re
from typing import Any

import yaml

from tests.harness.site import ROOT

INTEREST = "fairlead-cloudcore-interest"


def documented_rights(*, interest: bool) -> list[dict[str, Any]]:
    """A ServiceAccount, its roles and their bindings. interest: with what nodes' interests and calls need."""
    text = (ROOT / "docs" / "operations.md").read_text()
    [block] = re.findall(r"```yaml\n(# cloudcore's rights.*?)```", text, re.DOTALL)
    found = [each for each in yaml.safe_load_all(block) if each]
    return [each for each in found if interest or each["metadata"]["name"] != INTEREST]
