"""Cgroups are followed by what events name; the witness is a look at everything."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from odm_agent.agent.cgroups import PIECE, ClassifiedCgroups
from odm_agent.core.model import ClassPolicy, Mode
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath import abi
from odm_agent.kernel import hierarchy
from tests.lab.cgroup import Cgroup

NOBODY, OTHER = 65534, 65533
OURS = ClassPolicy(id=1, name="ours", cgroups=("system/*.service", "a/b/c*", "named/one"))
THEIRS = ClassPolicy(id=2, name="theirs", cgroups=("users/*/*.scope",), delegated=True)
WISHED = ClassPolicy(id=3, name="wished", cgroups=("users/*/*.wish",))
CLASSES = {each.id: each for each in (OURS, THEIRS, WISHED)}


class Noted:
    """The map, as far as the rows that were decided are in it."""

    def __init__(self) -> None:
        self.rows: dict[int, CgroupRow] = {}

    def row_of(self, cgroup_id: int) -> CgroupRow | None:
        return self.rows.get(cgroup_id)

    def members(self, class_id: int) -> int:
        return sum(row.class_id == class_id for row in self.rows.values())


class Following(ClassifiedCgroups):
    """With the map that it writes; `pieces` counts how many steps were taken."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.noted = Noted()
        self.pieces = 0

    def piece(self) -> None:
        """One step, and its rows written."""
        changes = self.step(PIECE, self.noted, seen=True)
        for number, row in changes.rows.items():
            self.noted.rows.pop(number, None)
            if row is not None:
                self.noted.rows[number] = row
        for number in changes.released:
            self.noted.rows.pop(number, None)
        self.told()
        self.pieces += 1

    def catch_up(self) -> None:
        """Take all events, and do all that they ask for."""
        while self.drain():
            pass
        while self.is_behind:
            self.piece()

    @property
    def looked(self) -> int:
        """How many names were looked at."""
        return self._hierarchy.looked


@pytest.fixture
def tree() -> Iterator[Cgroup]:
    with Cgroup("following") as tree:
        for name in ("system", "users", "named"):
            tree.child(name)
        yield tree


@pytest.fixture
def following(tree: Cgroup) -> Iterator[Following]:
    with closing(Following(tree.path)) as made:
        made.follow(CLASSES)
        made.catch_up()
        yield made


def user(tree: Cgroup, uid: int) -> Path:
    """The folder of a user, in which he makes cgroups."""
    folder = tree.path / f"users/u{uid}"
    folder.mkdir()
    os.chown(folder, uid, uid)
    return folder


def full_look(root: Path) -> dict[int, CgroupRow]:
    """What somebody finds who has seen nothing happen."""
    with closing(Following(root)) as fresh:
        fresh.follow(CLASSES)
        fresh.catch_up()
        return fresh.rows


def test_what_comes_and_goes_is_followed(tree: Cgroup, following: Following) -> None:
    for name in ("system/x.service", "a", "a/b", "a/b/c1", "named/one", "named/two"):
        (tree.path / name).mkdir()
        following.catch_up()
    assert following.members_of("ours") == ["a/b/c1", "named/one", "system/x.service"]
    assert following.rows == following.noted.rows == full_look(tree.path)
    (tree.path / "a/b/c1").rmdir()
    following.catch_up()
    assert following.members_of("ours") == ["named/one", "system/x.service"]
    assert following.rows == full_look(tree.path)


def test_what_is_made_again_by_its_name_is_another(tree: Cgroup, following: Following) -> None:
    path = tree.path / "named/one"
    path.mkdir()
    following.catch_up()
    before = path.stat().st_ino
    path.rmdir()
    path.mkdir()
    following.catch_up()
    assert set(following.rows) == {path.stat().st_ino} != {before}


def test_only_what_patterns_look_at_is_looked_at(tree: Cgroup, following: Following) -> None:
    (tree.path / "system/web").mkdir()
    (tree.path / "system/web/deeper").mkdir()
    (tree.path / "other").mkdir()
    before = following.looked
    following.catch_up()
    assert following.looked == before and following.rows == {}


def test_owner_decides_and_his_change_is_noticed(tree: Cgroup, following: Following) -> None:
    folder = user(tree, NOBODY)
    (folder / "x.wish").mkdir()
    (folder / "x.scope").mkdir()
    following.catch_up()
    assert following.members_of("theirs") == ["users/u65534/x.scope"]
    (refused,) = following.refused
    assert (refused.path, refused.pattern) == ("users/u65534/x.wish", "users/*/*.wish")
    assert refused.reason == f"{folder} belongs to uid {NOBODY}, not to root"
    os.chown(folder, 0, 0)
    following.catch_up()
    assert following.members_of("wished") == ["users/u65534/x.wish"] and not following.refused
    os.chown(folder / "cgroup.procs", NOBODY, NOBODY)
    following.catch_up()
    assert following.members_of("wished") == [] and len(following.refused) == 1
    assert following.rows == full_look(tree.path)


def test_work_is_linear_in_what_changed(tree: Cgroup, following: Following) -> None:
    for number in range(1000):
        (tree.path / f"system/{number}.service").mkdir()
    following.catch_up()
    before = following.looked
    for number in range(1000, 1010):
        (tree.path / f"system/{number}.service").mkdir()
        following.catch_up()
    assert following.looked - before == 10
    assert len(following.rows) == 1010


def test_flood_of_one_user_delays_nobody_else_by_more_than_a_piece(
    tree: Cgroup, following: Following
) -> None:
    flooder, other = user(tree, NOBODY), user(tree, OTHER)
    following.catch_up()
    for number in range(3000):
        (flooder / f"{number}.scope").mkdir()
    while following.drain():
        pass
    following.piece()
    assert following.is_behind
    (tree.path / "system/x.service").mkdir()
    (other / "x.scope").mkdir()
    # His events are in front of the other user's: a read holds some 2,000, and a piece takes one.
    while following.drain():
        pass
    following.piece()
    assert following.members_of("ours") == ["system/x.service"], "root does not wait"
    for _ in range(3):
        following.piece()
    assert "users/u65533/x.scope" in following.members_of("theirs")
    assert following.is_behind and not following.is_behind_root, "the flood is still there"
    following.catch_up()
    assert following.pieces < 2 * 3000 / PIECE + 20


def test_class_is_full_and_keeps_who_was_first(tree: Cgroup, following: Following) -> None:
    folder = user(tree, NOBODY)
    most = abi.MAX_DELEGATED
    following.catch_up()
    for number in range(most + 50):
        (folder / f"{number}.scope").mkdir()
    following.catch_up()
    kept = {f"users/u65534/{number}.scope" for number in range(most)}
    assert set(following.members_of("theirs")) == kept
    (refused,) = following.refused
    assert refused.reason.endswith("50 are left out")
    following.look_again()
    following.catch_up()
    assert set(following.members_of("theirs")) == kept, "also after a look at everything"
    (folder / "0.scope").rmdir()
    following.catch_up()
    assert len(following.members_of("theirs")) == most, "who waited has the room"
    assert "users/u65534/0.scope" not in following.members_of("theirs")


def test_what_the_programs_have_classified_stays(tree: Cgroup) -> None:
    """Those of the map come first, though others are found before them."""
    folder = user(tree, NOBODY)
    with closing(Following(tree.path)) as following:
        numbers = []
        for number in range(abi.MAX_DELEGATED + 50):
            (folder / f"{number}.scope").mkdir()
            numbers.append((folder / f"{number}.scope").stat().st_ino)
        programs = {each: CgroupRow(2) for each in numbers[-abi.MAX_DELEGATED :]}
        following.noted.rows |= programs
        following.follow(CLASSES)
        following.take_over(programs, CLASSES)
        following.catch_up()
        assert following.rows == programs


@pytest.mark.parametrize("folder", ["system", "users/u65534"])
def test_overflow_leads_to_a_look_at_all_in_pieces(
    tree: Cgroup, following: Following, folder: str
) -> None:
    user(tree, NOBODY)
    following.catch_up()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    churn = tree.path / folder / "churn"
    for _ in range(limit // 2 + 10):
        churn.mkdir()
        churn.rmdir()
    (tree.path / folder / "last.scope").mkdir()  # lost: the queue is full
    (tree.path / folder / "last.service").mkdir()
    following.catch_up()
    assert following.rows == full_look(tree.path) and len(following.rows) == 1


def test_overflow_of_a_user_makes_nobody_look_at_roots(tree: Cgroup, following: Following) -> None:
    for number in range(500):
        (tree.path / f"system/{number}.service").mkdir()
    folder = user(tree, NOBODY)
    following.catch_up()
    before = following.looked
    following._hierarchy._watch.foreign._reads.append(None)
    (folder / "x.scope").mkdir()
    following.catch_up()
    assert following.looked - before < 10
    assert following.members_of("theirs") == ["users/u65534/x.scope"]


def test_user_can_not_make_more_be_known_than_is_bounded(
    tree: Cgroup, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy, "MOST_KNOWN", 20)
    monkeypatch.setattr(hierarchy, "MOST_WAITING", 10)
    folder = user(tree, NOBODY)
    following.catch_up()
    for number in range(50):
        (folder / f"{number}.scope").mkdir()
    following.catch_up()
    assert len(following.members_of("theirs")) == 20
    for number in range(50):
        (folder / f"{number}.scope").rmdir()
    (folder / "new.scope").mkdir()
    following.catch_up()
    assert following.members_of("theirs") == ["users/u65534/new.scope"], "room is given back"


def test_many_refusals_are_told_in_short(tree: Cgroup, following: Following) -> None:
    folder = user(tree, NOBODY)
    for number in range(300):
        (folder / f"{number}.wish").mkdir()
    following.catch_up()
    assert len(following.refused) == 10
    assert following.refused[-1].reason.endswith("not to root; so are 290 more")


def test_other_patterns_move_rows_in_pieces_and_keep_the_class_until_then(
    tree: Cgroup, following: Following
) -> None:
    for number in range(1000):
        (tree.path / f"system/{number}.service").mkdir()
    following.catch_up()
    moved = ClassPolicy(id=4, name="moved", cgroups=OURS.cgroups)
    following.follow({4: moved})
    following.take_over(following.noted.rows, CLASSES)
    following.piece()
    following.piece()
    following.piece()
    ids = {row.class_id for row in following.rows.values()}
    assert ids == {1, 4} and following.reserved().keys() == {1}, "the old class is needed"
    following.catch_up()
    assert {row.class_id for row in following.rows.values()} == {4}
    assert following.members_of("ours") == [] and not following.reserved()


def test_class_that_is_off_is_a_row_of_none(tree: Cgroup, following: Following) -> None:
    (tree.path / "named/one").mkdir()
    following.catch_up()
    off = ClassPolicy(id=1, name="ours", cgroups=OURS.cgroups, mode=Mode.OFF)
    following.follow({1: off})
    following.take_over(following.noted.rows, CLASSES)
    assert following.reserved()[1].mode is Mode.ENFORCE, "until its rows are others"
    following.catch_up()
    assert list(following.rows.values()) == [CgroupRow(0)] and not following.reserved()


def test_rows_stay_while_the_root_cannot_be_found(tree: Cgroup) -> None:
    """It may be hidden by a mount, and the programs at work below."""
    root = tree.child("root")
    number = root.child("service").id
    ours = ClassPolicy(id=1, name="ours", cgroups=("service",))
    with closing(Following(root.path)) as following:
        following.follow({1: ours})
        following.catch_up()
        rows = {number: CgroupRow(1)}
        assert following.rows == rows
        (root.path / "service").rmdir()
        root.path.rmdir()
        for _ in range(2):
            assert following.root_is_gone() and not following.is_gone(number)
            following.look_again()
            following.take_over(rows, {1: ours})
            following.catch_up()
            assert following.rows == rows and following.members_of("ours") == []
            root.path.mkdir(exist_ok=True)  # another one by its name


def test_of_more_than_may_be_the_newest_go(tree: Cgroup, following: Following) -> None:
    """Programs that count at the same time as the agent may have noted some too many."""
    folder = user(tree, NOBODY)
    paths = [folder / f"{number}.scope" for number in range(abi.MAX_DELEGATED + 3)]
    for path in paths:
        path.mkdir()
        following.noted.rows[path.stat().st_ino] = CgroupRow(2)
    following.catch_up()
    assert following.rows.keys() == {path.stat().st_ino for path in paths[:-3]}
