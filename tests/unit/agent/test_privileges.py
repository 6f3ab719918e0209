"""What an agent goes on needing follows from its configuration."""

from pathlib import Path

import pytest

from odm_agent.agent.privileges import KEPT, needed
from odm_agent.config.load import parse
from odm_agent.kernel.capabilities import Capability

BIND = {Capability.NET_BIND_SERVICE}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("", set()),
        ('[agent]\nmetrics = ""', set()),
        ('[agent]\nmetrics = "127.0.0.1:80"', BIND),
        ('[delegations.isp]\ninterface = "w0"', BIND),
    ],
)
def test_a_low_port_takes_one_capability_more(text: str, more: set[Capability]) -> None:
    assert needed(parse(text, Path("f.toml"))) == KEPT | more
