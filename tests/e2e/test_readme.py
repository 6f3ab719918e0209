"""What the README tells newcomers to type is true."""

import re
from pathlib import Path
from typing import Final

import pytest

from odm_agent.config.load import parse

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
)


def test_the_first_configuration_is_taken() -> None:
    texts = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    first, roaming = (parse(text, Path("odm-agent.toml")) for text in texts)
    assert list(first.prefixes) == ["home6", "home4"]
    assert list(first.classes) == ["backup"]
    assert list(roaming.uplinks) == ["wifi", "lte", "vpn"] and not roaming.prefixes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
