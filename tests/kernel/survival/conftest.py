"""What these tests look at: links, counters, and pins made to look like another version's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import AddressType
from odm_agent.datapath.base import Sent, VerdictKey
from odm_agent.datapath.install import pins
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.host import PREFIXES
from tests.lab.load import ALL, Job, Tally, under_load
from tests.lab.world import STANDARD, World

#: The standard site but for its on-link IPv4 prefix: each first start would wait for RFC 5227.
QUICK: Final = replace(STANDARD, prefixes=[p for p in PREFIXES if p.name != "graceful4"])


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """The standard site with a running agent, for one test alone."""
    with World(tmp_path, QUICK) as made:
        yield made


def link_ids(world: World) -> dict[str, int]:
    """program name -> the id of its link: the same as long as it was never detached."""
    return {name: link.id for name, link in pins.attached(world.agent.pins).items()}


def program_ids(world: World) -> dict[str, int]:
    """program name -> the id of the program that its link runs."""
    return {name: link.prog_id for name, link in pins.attached(world.agent.pins).items()}


class Counters:
    """Verdicts and what was sent, read again and again: none ever goes back or is lost."""

    def __init__(self, world: World) -> None:
        self._pins = world.agent.pins
        self._last: dict[VerdictKey, int] = {}
        self._sent: dict[tuple[int, AddressType], Sent] = {}

    def check(self) -> int:
        """The sum of all verdicts, now."""
        with MapWriter(self._pins) as datapath:
            now, sent = datapath.verdicts(), datapath.traffic()
        for key, count in self._last.items():
            assert now.get(key, 0) >= count, f"{key} went back from {count} to {now.get(key, 0)}"
        for class_and_type, before in self._sent.items():
            after = sent[class_and_type]
            assert (after.bytes, after.packets) >= (before.bytes, before.packets), class_and_type
        self._last, self._sent = now, sent
        return sum(now.values())


@contextmanager
def unharmed(world: World, jobs: tuple[Job, ...] = ALL) -> Iterator[Tally]:
    """Under load, of which nothing fails, with counters that go on."""
    counters = Counters(world)
    with under_load(world, jobs) as tally:
        before = counters.check()
        yield tally
        counters.check()
    after = counters.check()
    assert not tally.wrong, tally.wrong
    assert tally.right > 100, "a load that is worth the name"
    assert after - before > tally.right / 4, "counted all along"


def outdate(world: World) -> None:
    """Make the pins look as if they were of another source."""
    identity = str(world.agent.pins / "odm_identities")
    world.site.host.run(
        [
            *("bpftool", "map", "update", "pinned", identity, "key", "0", "0", "0", "0", "value"),
            *_identity(world)[:8],
            *["7"] * 32,
        ]
    )


def _identity(world: World) -> list[str]:
    path = str(world.agent.pins / "odm_identities")
    (row,) = json.loads(world.site.host.run(["bpftool", "-j", "map", "dump", "pinned", path]))
    return [str(int(each, 16)) for each in row["value"]]
