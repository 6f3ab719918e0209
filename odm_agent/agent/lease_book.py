"""Writes down the leases, so that an agent that starts anew goes on with them.

Times are boot time, which nobody can set. Since another boot's clock starts anew, the wall clock at
that moment is written beside them, and which boot it was.
"""

import logging
from dataclasses import replace

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core import trace
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Record
from odm_agent.core.grants import Grant
from odm_agent.core.leases import Lease, later
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

        A row that can't be read any more (another version wrote it) is left out, and told of.
        """
        leases = []
        for prefix_id, text in self._journal.leases().items():
            try:
                lease = self._read(trace.value_of(text), now)
                if lease.grant.prefix.id != prefix_id:
                    raise ValueError("it is of another prefix")
                leases.append(replace(lease, phase=Phase.PROBING))
            except ValueError as error:
                log.warning("a lease is lost", extra={"prefix": prefix_id, "error": str(error)})
        return leases

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
                if boot and boot == self._journal.boot:
                    return lease  # its clock runs on, whatever was done to the wall clock
                # A wall clock that went back must not give it more time than it had.
                was_s = min(now.boot_at(then.wall_s), now.boot_s)
                return later(lease, was_s - then.boot_s)
            case Grant() as grant:  # on the wall clock: of a version before address leases
                return later(Lease(grant), now.boot_s - now.wall_s)
        raise ValueError("it is no lease")
