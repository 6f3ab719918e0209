"""Which test run made a thing: every name that the laboratory gives carries the run's number."""

import os
import re
from typing import Final

#: In the environment of all that a run starts; its value is the run's number.
MARK: Final = "ODM_TEST_RUN"
#: What names begin with: namespaces and cgroups, pin folders.
LAB: Final = "odmlab"
PINS: Final = "odm-test"
_NAMED: Final = rf"(?:^|/)(?:{LAB}|{PINS})"


def number() -> int:
    """The number of this run: the process id of who began it, ours if nobody has said."""
    return int(os.environ.get(MARK) or os.getpid())


def name(kind: str, count: int, label: str = "") -> str:
    """A name that no other thing of this run has, nor any of another run.

    `kind` begins it; `count` tells what one process makes apart, `label` is for people.
    """
    return f"{kind}-{number()}-{os.getpid()}-{count}{label and '-' + label}"


def is_ours(text: str) -> bool:
    """Whether a path or text holds a name that this run has given."""
    return re.search(rf"{_NAMED}-{number()}-\d+-\d+", text) is not None
