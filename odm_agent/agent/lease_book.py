"""Writes down the leases, so that an agent that starts anew goes on with them.

Times are boot time, which nobody can set. Since another boot's clock starts anew, the wall clock at
that moment is written beside them, and which boot it was.
"""

import logging
import math
from dataclasses import replace

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core import trace
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Record
from odm_agent.core.leases import Lease, flaw, later
from odm_agent.core.lifetimes import Phase
from odm_agent.journal import Journal

log = logging.getLogger(__name__)


class LeaseBook(JournalWork):
    """The journal's leases."""

    def __init__(self, journal: Journal) -> None:
        """Nothing is to be written yet."""
        super().__init__("leases")
        self._journal = journal
        self._unwritten: dict[int, str | None] = {}

    def read(self, now: Moment) -> list[Lease]:
        """What an agent before this one held. Raises JournalError.

        A row that can't be read any more (another version wrote it), or holds what can't be (it was
        damaged, or changed by hand), is told of and dropped: its prefix begins with new addresses.
        """
        leases: list[Lease] = []
        taken = set[int]()
        for prefix_id, text in self._journal.leases().items():
            try:
                lease = self._read(trace.value_of(text), now)
                if lease.grant.prefix.id != prefix_id:
                    raise ValueError("it is of another prefix")
                ids = {each.id for each in lease.addresses}
                if not taken.isdisjoint(ids):
                    raise ValueError("another prefix has a lease of the same id")
            except ValueError as error:
                self._drop(prefix_id, str(error))
            else:
                taken |= ids
                leases.append(replace(lease, phase=Phase.PROBING))
        self.write()
        return leases

    def _drop(self, prefix_id: int, why: str) -> None:
        log.warning(
            "a lease is lost: the state has no valid one of a prefix, whose addresses begin anew",
            extra={"prefix": prefix_id, "error": why},
        )
        self._unwritten[prefix_id] = None

    def note(self, record: Record, now: Moment) -> None:
        """Write one down, or that it is gone; what can't be written now is tried by `write`."""
        self._unwritten[record.prefix_id] = (
            None if record.lease is None else trace.spelled((self._journal.boot, now, record.lease))
        )
        self.write()

    def write(self) -> None:
        """Write what is not written yet; costs nothing if there is nothing."""
        if self._unwritten and self.attempt(lambda: self._journal.keep_leases(self._unwritten)):
            self._unwritten = {}

    def _read(self, value: object, now: Moment) -> Lease:
        match value:
            case (str(boot), Moment() as then, Lease() as lease):
                if not (math.isfinite(then.boot_s) and math.isfinite(then.wall_s)):
                    raise ValueError("it is of no moment")
                is_of_this_boot = boot and boot == self._journal.boot
                if (why := flaw(lease, now.boot_s if is_of_this_boot else then.boot_s)) is not None:
                    raise ValueError(why)
                if is_of_this_boot:
                    return lease  # its clock runs on, whatever was done to the wall clock
                # A wall clock that went back must not give it more time than it had.
                was_s = min(now.boot_at(then.wall_s), now.boot_s)
                return later(lease, was_s - then.boot_s)
        raise ValueError("it is no lease")
