"""Writes down of which class cgroups are, for programs whose maps nobody could fill otherwise.

A version of which the map of cgroups, or of classes, is another one finds out by itself which
cgroups patterns name now. It can't find out what a removed cgroup was, whose sockets go on, nor
what sockets keep of a class that has ended (policy/ended.py).
"""

import logging
from collections.abc import Mapping

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core.model import UNCLASSIFIED, AddressType, ClassPolicy
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath import abi
from odm_agent.journal import CgroupNote, Journal

log = logging.getLogger(__name__)


class CgroupBook(JournalWork):
    """The journal's cgroups, as the map had them when it was last looked at."""

    def __init__(self, journal: Journal) -> None:
        """Raises JournalError."""
        super().__init__("classes of cgroups")
        self._journal = journal
        found = journal.cgroups()
        self._written = {number: note for number, note in found.items() if _is_sound(note)}
        if wrong := found.keys() - self._written.keys():
            log.warning("wrong notes of cgroups are not used", extra={"cgroups": sorted(wrong)})
        self._wanted = self._written

    def write(self, rows: Mapping[int, CgroupRow], classes: Mapping[int, ClassPolicy]) -> None:
        """Record the rows of the map, and what these classes, which are in force, allow."""
        self._wanted = {
            n: _note(row, classes) for n, row in rows.items() if row.class_id != abi.UNDECIDED_CLASS
        }
        self.record()

    def record(self) -> None:
        """Try again what could not be recorded; costs nothing if all is."""
        wanted, written = self._wanted, self._written
        if wanted is written:
            return
        changed: dict[int, CgroupNote | None] = {
            number: note for number, note in wanted.items() if written.get(number) != note
        }
        changed |= dict.fromkeys(written.keys() - wanted.keys())
        if self.attempt(lambda: self._journal.keep_cgroups(changed) if changed else None):
            self._written = wanted

    def rows(self) -> dict[int, CgroupRow]:
        """The rows that were there."""
        return {
            number: CgroupRow(
                note.class_id,
                None if note.default is None else AddressType(note.default),
                frozenset() if note.class_id else abi.unpack_types(note.types),
            )
            for number, note in self._written.items()
        }

    def classes(self) -> dict[int, ClassPolicy]:
        """The classes that these rows were of; of a policy only what it allowed."""
        return {
            note.class_id: ClassPolicy(note.class_id, "", allow=abi.unpack_types(note.types))
            for note in self._written.values()
            if note.class_id != UNCLASSIFIED
        }


def _is_sound(note: CgroupNote) -> bool:
    """Whether somebody's own hand, or a fault of the disk, has not made it what can't be."""
    is_type = note.default is None or note.default in {int(each) for each in AddressType}
    return is_type and 0 <= note.class_id < abi.UNDECIDED_CLASS and note.types >= 0


def _note(row: CgroupRow, classes: Mapping[int, ClassPolicy]) -> CgroupNote:
    types = row.kept
    if row.class_id != UNCLASSIFIED:
        policy = classes.get(row.class_id)
        types = policy.allow if policy is not None else frozenset()
    default = None if row.default is None else int(row.default)
    return CgroupNote(row.class_id, default, abi.pack_types(types))
