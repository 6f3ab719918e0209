"""A world of its own for each test that changes it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.world import World


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """The standard site with a running agent, for one test alone."""
    with World(tmp_path) as made:
        yield made


def eventually(true: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    """Wait until something holds; AssertionError says what didn't."""
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")
