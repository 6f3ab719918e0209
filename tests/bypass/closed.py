"""A class with all of `refuse`, once the agent has it; until then the standard settings."""

from dataclasses import replace
from typing import Final

from tests.bypass.pending import PENDING
from tests.lab.agent import LabClass, Settings
from tests.lab.world import CLASSES, STANDARD

NAME: Final = "closed"
CLOSED: Final = LabClass(refuse=("raw", "ping", "mptcp", "udplite", "packet", "xdp"))
SETTINGS: Final[Settings] = (
    STANDARD if "refuse" in PENDING else replace(STANDARD, classes={**CLASSES, NAME: CLOSED})
)
