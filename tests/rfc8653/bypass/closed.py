"""A class that is closed to all kinds of socket that it can be closed to."""

from dataclasses import replace
from typing import Final

from tests.lab.agent import LabClass, Settings
from tests.lab.world import CLASSES, STANDARD

NAME: Final = "closed"
CLOSED: Final = LabClass(refuse=("raw", "ping", "mptcp", "udplite", "packet", "xdp"))
SETTINGS: Final[Settings] = replace(STANDARD, classes={**CLASSES, NAME: CLOSED})
