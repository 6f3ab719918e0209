"""One world for the tests that leave it as it was, in a folder that everybody may enter."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.world import World


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    """The standard site with a running agent, shared (pytest's own folders are root's alone)."""
    with tempfile.TemporaryDirectory(prefix=f"odm-hardening-{os.getpid()}-") as name:
        Path(name).chmod(0o755)
        with World(Path(name)) as made:
            yield made
