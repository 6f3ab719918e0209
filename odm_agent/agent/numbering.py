"""Gives numbers to the names of classes and prefixes, and makes those free that nothing carries."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from odm_agent.core.grants import Grant
from odm_agent.core.numbering import Kind, Ledger
from odm_agent.journal import Journal

log = logging.getLogger(__name__)


class Draft:
    """Numbers that are given within a transaction of the journal, and not otherwise."""

    def __init__(self, journal: Journal, ledgers: Mapping[Kind, Ledger]) -> None:
        self._journal = journal
        self.ledgers = dict(ledgers)

    def take(self, kind: Kind, name: str) -> int:
        """The number of a name that is in use from now on. Raises NoNumberError, JournalError."""
        ledger = self.ledgers[kind].using(name)
        if name not in self.ledgers[kind].given:
            self._journal.give_number(kind, name, ledger.given[name])
        self.ledgers[kind] = ledger
        return ledger.given[name]


class Numbering:
    """The journal's numbers. A row there says that a number is not free, whether used or retired.

    Which names are in use, and since when nothing carries the others' numbers, is not recorded:
    after a restart their quarantine begins anew.
    """

    def __init__(self, journal: Journal, last: Mapping[Kind, int]) -> None:
        """`last` is the highest number of each kind."""
        self._journal = journal
        self._ledgers = {kind: Ledger(kind, highest) for kind, highest in last.items()}
        self._granted: frozenset[str] = frozenset()

    def names(self, kind: Kind) -> dict[int, str]:
        """All names that have a number, retired ones too, as last written or read."""
        return {number: name for name, number in self._ledgers[kind].given.items()}

    @property
    def any_retired(self) -> bool:
        """Whether a number might become free."""
        return any(ledger.given.keys() - ledger.used for ledger in self._ledgers.values())

    @contextmanager
    def configuration(self) -> Iterator[Draft]:
        """For the names of a configuration, all or none of which get their numbers.

        What a configuration before has named and this one does not is retired. Raises JournalError.
        """
        with self._drafted(self._granted) as draft:
            yield draft

    def take(self, grant: Grant) -> Grant:
        """A grant of a source, with the numbers of its prefix and of its classes' seats, the
        same until they are free again; a class that is not there any more has no seat.

        Raises NoNumberError, JournalError; then nothing has changed.
        """
        # No name of a configuration has a slash. A source may renew a grant with another prefix,
        # and both may be held for a while.
        name = f"{grant.key.source}/{grant.key.instance}/{grant.prefix.network}"
        classes = self._ledgers["class"]
        prefixes = self._ledgers["prefix"].used - _seats_of(name, self._granted)
        with self._drafted(prefixes, classes.used) as draft:
            number = draft.take("prefix", name)
            seats = tuple(
                replace(
                    seat,
                    class_id=classes.given[seat.class_name],
                    number=draft.take("prefix", f"{name}/{seat.class_name}"),
                )
                for seat in grant.prefix.seats
                if seat.class_name in classes.used
            )
        taken = {name, *(f"{name}/{seat.class_name}" for seat in seats)}
        self._granted = (self._granted - _seats_of(name, self._granted)) | taken
        return replace(grant, prefix=replace(grant.prefix, id=number, seats=seats))

    def give_back(self, number: int) -> None:
        """Retire the number of a granted prefix, as no row of the table has it any more."""
        ledger = self._ledgers["prefix"]
        gone = {name for name in self._granted if ledger.given[name] == number}
        gone = gone.union(*(_seats_of(name, self._granted) for name in gone))
        self._granted -= gone
        self._ledgers["prefix"] = ledger.of(ledger.given, ledger.used - gone)

    def survey(
        self,
        carried: Mapping[Kind, frozenset[int]],
        now: float,
        forget: Callable[[Kind, int], None],
    ) -> None:
        """Note what is carried at `now`, and make free what has been carried by nothing for long.

        `forget` must remove what the maps still say about a number; what it raises leaves the
        numbers taken. Raises JournalError.
        """
        surveyed = {kind: each.surveyed(carried[kind], now) for kind, each in self._ledgers.items()}
        self._ledgers = surveyed
        due = {kind: names for kind, each in surveyed.items() if (names := each.due(now))}
        if not due:
            return
        with self._journal.transaction():
            if self._journal.numbers_are_shared():
                return
            for kind, names in due.items():
                for number in names.values():
                    forget(kind, number)
                self._journal.free_numbers(kind, names)
        for kind, names in due.items():
            self._ledgers[kind] = surveyed[kind].without(names)
            log.info("numbers are free again", extra={"kind": kind, "of": sorted(names)})

    @contextmanager
    def _drafted(
        self, prefixes: frozenset[str], classes: frozenset[str] = frozenset()
    ) -> Iterator[Draft]:
        """A draft in which these names are in use already; in force when the block ends well."""
        with self._journal.transaction():
            self._journal.join_numbering()
            draft = Draft(
                self._journal,
                {
                    kind: each.of(
                        self._journal.numbers(kind), prefixes if kind == "prefix" else classes
                    )
                    for kind, each in self._ledgers.items()
                },
            )
            yield draft
        self._ledgers = draft.ledgers


def _seats_of(prefix: str, names: Iterable[str]) -> frozenset[str]:
    """Of these names those of the seats of classes in a prefix."""
    return frozenset(name for name in names if name.startswith(f"{prefix}/"))
