"""Whatever happens to a tree: following by events ends where a look at everything does."""

import os
import random
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.kernel.cgroups.test_following import CLASSES, NOBODY, OTHER, Following, full_look
from tests.lab.cgroup import Cgroup

NAMES = ("system", "users", "named", "a", "b", "c1", "one", "u", "x.service", "x.scope", "x.wish")


@pytest.fixture
def tree() -> Iterator[Cgroup]:
    with Cgroup("any") as tree:
        yield tree


@pytest.mark.parametrize("seed", range(8))
def test_following_by_events_equals_a_look_at_everything(tree: Cgroup, seed: int) -> None:
    chosen = random.Random(seed)
    there: list[Path] = [tree.path]
    with closing(Following(tree.path)) as following:
        following.follow(CLASSES)
        for step in range(400):
            with suppress(OSError):
                _something(chosen, there)
            if chosen.random() < 0.1:
                following.drain()
                following.piece()  # what is done half is gone on with later
            if step % 100 == 99:
                following.catch_up()
                assert following.rows == full_look(tree.path), f"seed {seed}, step {step}"


def _something(chosen: random.Random, there: list[Path]) -> None:
    """A cgroup is made, removed, or given to somebody."""
    path = chosen.choice(there)
    what = chosen.random()
    if what < 0.6:
        new = path / chosen.choice(NAMES)
        new.mkdir()
        there.append(new)
    elif what < 0.8 and len(there) > 1:
        leaf = there[-1] if chosen.random() < 0.5 else path
        leaf.rmdir()
        there.remove(leaf)
    else:
        uid = chosen.choice((0, 0, NOBODY, OTHER))
        os.chown(path if chosen.random() < 0.7 else path / "cgroup.procs", uid, uid)
