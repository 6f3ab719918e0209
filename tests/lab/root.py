"""What only root can do, in suites that anybody may run."""

import os
from typing import Final

import pytest

needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
