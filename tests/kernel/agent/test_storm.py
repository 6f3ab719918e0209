"""A user who makes cgroups by the thousand delays nobody: root's get their class meanwhile."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.agent import LabClass
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, SESSION, type_of
from tests.lab.process import wait_until
from tests.lab.world import CLASSES, STANDARD, World

NOBODY = 65534
MANY = 5000
#: The programs can't tell whether `rough` fits, so its cgroups wait for the agent.
MORE = {
    "rough": LabClass(allow=(FIXED,), default=FIXED, cgroups=("rough/[\u00e9x]*",)),
    "user": LabClass(allow=(SESSION,), default=SESSION, cgroups=("user/*/*.service",)),
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, replace(STANDARD, classes={**CLASSES, **MORE})) as made:
        yield made


def test_storm_of_one_user_delays_no_class_and_no_answer(own: World) -> None:
    own.place("rough")
    folder = own.place("user/u").cgroup.path
    os.chown(folder, NOBODY, NOBODY)

    def make() -> None:
        for number in range(MANY):
            (folder / f"{number}.service").mkdir()

    own.place("plain").do(make, uid=NOBODY, timeout_s=100)
    place = own.place("rough/x1")
    wait_until(lambda: _class_of(own, place.cgroup.id) is not None, "the agent has looked at it")
    assert own.agent.read("status")["classes"] == len(CLASSES) + len(MORE)
    assert type_of(place.do(lambda: call(Kind.TCP6)).seen) is FIXED
    wait_until(lambda: _told(own) == MANY + 1, "all of his are looked at, and refused", 30)
    refused = [each for each in own.agent.read("status")["alarms"] if "user/u/" in each]
    assert len(refused) == 10 and refused[-1].endswith(f"so are {MANY - 10} more")
    assert own.agent.log.read_text().count("cgroup not classified") < 5


def test_classes_of_thousands_of_cgroups_change_as_a_whole(own: World) -> None:
    """All are of the new class when the reload has answered."""
    apps = own.place("apps").cgroup.path
    for number in range(1500):
        (apps / f"{number}.service").mkdir()
    before = _sizes(own)
    assert max(before.values()) >= 1500
    classes = {**CLASSES, **MORE}
    name = next(n for n, each in classes.items() if "apps/*.service" in each.cgroups)
    classes[f"{name}-anew"] = classes.pop(name)
    own.agent.configure(replace(STANDARD, classes=classes))
    assert own.agent.reload().returncode == 0
    after = _sizes(own)
    (old,) = (class_id for class_id, count in before.items() if count >= 1500)
    (new,) = (class_id for class_id, count in after.items() if count >= 1500)
    assert new != old and old not in after


def _told(world: World) -> int:
    """How many refusals the alarms speak of."""
    alarms = [each for each in world.agent.read("status")["alarms"] if "so are" in each]
    return 11 + int(alarms[0].rsplit("so are ", 1)[1].split()[0]) if alarms else 0


def _class_of(world: World, number: int) -> int | None:
    with MapWriter(world.agent.pins) as datapath:
        row = datapath.row_of(number)
        return row.class_id if row is not None else None


def _sizes(world: World) -> Counter[int]:
    with MapWriter(world.agent.pins) as datapath:
        return Counter(row.class_id for row in datapath.classified().values())
