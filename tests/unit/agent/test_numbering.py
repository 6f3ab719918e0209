"""Numbers on the real journal."""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from random import Random

import pytest

from odm_agent.agent.numbering import Numbering
from odm_agent.core.errors import DatapathError
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.model import AddressType, Placement, Seat, TypedPrefix
from odm_agent.core.numbering import QUARANTINE_S, Kind, NoNumberError
from odm_agent.journal import Journal, JournalError, Owner
from tests.unit.journal.doubles import Refusing

LAST: dict[Kind, int] = {"class": 254, "prefix": 255}
KINDS: tuple[Kind, ...] = ("class", "prefix")
NONE: dict[Kind, frozenset[int]] = {kind: frozenset() for kind in KINDS}


def _forget(kind: Kind, number: int) -> None:
    pass


def _configure(numbering: Numbering, *names: str, kind: Kind = "class") -> list[int]:
    with numbering.configuration() as draft:
        return [draft.take(kind, name) for name in names]


def granted(name: str) -> Grant:
    network = IPv6Network("2001:db8::/64")
    spans = (network,)
    fixed = AddressType.FIXED
    prefix = TypedPrefix(0, name, fixed, network, "w0", None, Placement.DELEGATED, spans)
    return Grant(GrantKey("dhcp", "eth0"), prefix)


def _pass_quarantine(numbering: Numbering) -> None:
    for now in (0.0, QUARANTINE_S):
        numbering.survey(NONE, now, _forget)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "state" / "state.db")) as opened:
        yield opened


def test_what_a_configuration_does_not_name_any_more_is_retired(journal: Journal) -> None:
    numbering = Numbering(journal, LAST)
    assert _configure(numbering, "a", "b") == [1, 2]
    assert not numbering.any_retired
    assert _configure(numbering, "b", "c") == [2, 3]
    assert numbering.any_retired
    assert numbering.names("class") == {1: "a", 2: "b", 3: "c"}, "a is still known"
    assert _configure(numbering, "a") == [1], "and comes back to its number"
    _pass_quarantine(numbering)
    assert numbering.names("class") == {1: "a"}
    assert _configure(numbering, "d") == [2]


def test_a_restart_finds_the_numbers_and_quarantines_anew(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    with closing(Journal(path)) as journal:
        numbering = Numbering(journal, LAST)
        _configure(numbering, "a", "b")
        _configure(numbering, "b")
        numbering.survey(NONE, 0.0, _forget)
    with closing(Journal(path)) as journal:
        numbering = Numbering(journal, LAST)
        assert _configure(numbering, "b") == [2]
        numbering.survey(NONE, QUARANTINE_S, _forget)
        assert _configure(numbering, "b", "c") == [2, 3]


def test_a_configuration_that_is_refused_changes_nothing(journal: Journal) -> None:
    numbering = Numbering(journal, LAST)
    _configure(numbering, "a")
    with suppress(ZeroDivisionError), numbering.configuration() as draft:
        draft.take("class", "b")
        raise ZeroDivisionError
    assert journal.numbers("class") == {"a": 1}
    assert numbering.names("class") == {1: "a"}
    assert not numbering.any_retired


def test_a_grant_has_a_number_whatever_is_configured(journal: Journal) -> None:
    numbering = Numbering(journal, LAST)
    grant, name = granted("first"), "dhcp/eth0/2001:db8::/64"
    assert _configure(numbering, "p", kind="prefix") == [1]
    assert numbering.take(grant).prefix.id == 2
    assert numbering.take(grant).prefix.id == 2
    assert journal.numbers("prefix") == {"p": 1, name: 2}
    _configure(numbering, "q", kind="prefix")
    _pass_quarantine(numbering)
    assert journal.numbers("prefix") == {name: 2, "q": 3}
    numbering.give_back(2)
    _pass_quarantine(numbering)
    assert journal.numbers("prefix") == {"q": 3}


def test_the_seats_of_a_grant_have_numbers_as_long_as_their_classes_have_them(
    journal: Journal,
) -> None:
    numbering = Numbering(journal, LAST)
    grant, name = granted("first"), "dhcp/eth0/2001:db8::/64"

    def shared_by(*classes: str) -> list[tuple[str, int, int]]:
        seats = tuple(Seat(each) for each in classes)
        taken = numbering.take(replace(grant, prefix=replace(grant.prefix, seats=seats)))
        assert taken.prefix.id == 1 and taken.prefix.is_numbered
        return [(each.class_name, each.class_id, each.number) for each in taken.prefix.seats]

    _configure(numbering, "a", "b")
    assert shared_by("a", "b", "gone") == [("a", 1, 2), ("b", 2, 3)]
    assert shared_by("b") == [("b", 2, 3)]
    _pass_quarantine(numbering)
    assert journal.numbers("prefix") == {name: 1, f"{name}/b": 3}
    assert shared_by("a", "b") == [("a", 1, 2), ("b", 2, 3)]
    numbering.give_back(1)
    _pass_quarantine(numbering)
    assert journal.numbers("prefix") == {}


def test_a_journal_that_cannot_be_written_changes_nothing(journal: Journal) -> None:
    numbering = Numbering(journal, LAST)
    _configure(numbering, "a", "b")
    _configure(numbering, "a")
    numbering.survey(NONE, 0.0, _forget)
    journal._db.execute("PRAGMA query_only = 1")
    with pytest.raises(JournalError):
        numbering.survey(NONE, QUARANTINE_S, _forget)
    with pytest.raises(JournalError):
        _configure(numbering, "c")
    with pytest.raises(JournalError):
        numbering.take(granted("d"))
    journal._db.execute("PRAGMA query_only = 0")
    db = journal._db
    journal._db = Refusing(db, "COMMIT")  # type: ignore[assignment]
    with pytest.raises(JournalError):
        _configure(numbering, "c")
    with pytest.raises(JournalError):
        numbering.take(granted("d"))
    journal._db = db
    assert numbering.names("class") == {1: "a", 2: "b"}
    assert numbering.names("prefix") == {}
    numbering.survey(NONE, QUARANTINE_S, _forget)
    assert journal.numbers("class") == {"a": 1}


def test_what_the_maps_cannot_forget_is_not_given_anew(journal: Journal) -> None:
    def refuse(kind: Kind, number: int) -> None:
        raise DatapathError("no")

    numbering = Numbering(journal, LAST)
    _configure(numbering, "a")
    _configure(numbering)
    numbering.survey(NONE, 0.0, refuse)
    with pytest.raises(DatapathError):
        numbering.survey(NONE, QUARANTINE_S, refuse)
    assert journal.numbers("class") == {"a": 1}
    forgotten: list[tuple[Kind, int]] = []
    numbering.survey(NONE, QUARANTINE_S, lambda *which: forgotten.append(which))
    assert forgotten == [("class", 1)]
    assert journal.numbers("class") == {}


def test_nothing_is_free_while_other_agents_maps_may_have_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    owners = [Owner("boot", netns, "/pins") for netns in (1, 2)]
    with closing(Journal(path, owners[0])) as one, closing(Journal(path, owners[1])) as other:
        mine, others = Numbering(one, LAST), Numbering(other, LAST)
        assert _configure(mine, "a") == [1]
        assert _configure(others, "b") == [2]
        assert mine.names("class") == {1: "a"}, "as last read"
        assert _configure(mine, "c") == [3]
        _pass_quarantine(mine)
        assert one.numbers("class") == {"a": 1, "b": 2, "c": 3}
        other.leave_numbering()
        _pass_quarantine(mine)
        assert one.numbers("class") == {"c": 3}


def test_no_number_ever_means_two_things(journal: Journal) -> None:
    """10,000 renumberings of each kind; carriers of old numbers stay for as long as they like."""
    random = Random(8653)
    numbering = Numbering(journal, LAST)
    now, turn = 0.0, 0
    renumbered = dict.fromkeys(KINDS, 0)
    #: What stands for what wherever it is carried; and when its last carrier went.
    carried: dict[Kind, dict[int, str]] = {kind: {} for kind in KINDS}
    left: dict[tuple[Kind, int], tuple[str, float]] = {}
    current: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    while min(renumbered.values()) < 10_000:
        turn += 1
        now += random.uniform(1, 120)
        for kind in KINDS:
            kept = random.sample(current[kind], len(current[kind]) // 2)
            new = [f"{kind}-{turn}-{n}" for n in range(random.randint(20, 60))]
            current[kind] = kept + new
        with suppress(NoNumberError):
            with numbering.configuration() as draft:
                taken = {
                    kind: {draft.take(kind, name): name for name in names}
                    for kind, names in current.items()
                }
            for kind in KINDS:
                for number, name in taken[kind].items():
                    assert carried[kind].get(number, name) == name
                    whose, since = left.get((kind, number), (name, 0.0))
                    assert whose == name or now - since >= QUARANTINE_S
                    renumbered[kind] += carried[kind].get(number) != name
                    carried[kind][number] = name
            in_use = {kind: set(taken[kind]) for kind in KINDS}
        for kind in KINDS:  # most of what retired names left behind goes soon, some very late
            for number in list(carried[kind].keys() - in_use[kind]):
                if random.random() < (0.02 if number % 10 == 0 else 0.7):
                    left[kind, number] = carried[kind].pop(number), now
        seen = {kind: frozenset(carried[kind]) for kind in KINDS}
        numbering.survey(seen, now, _forget)
    assert len(journal.numbers("class")) <= LAST["class"]
