"""Writes down the leases, so that an agent that starts anew goes on with them.

The journal has wall time, since boot time starts anew; what never ends has no time.
"""

import logging
from dataclasses import replace

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core import trace
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Record
from odm_agent.core.grants import Grant
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime
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
                grant = trace.value_of(text)
                if not isinstance(grant, Grant) or grant.prefix.id != prefix_id:
                    raise ValueError("it is no grant of that prefix")
                leases.append(Lease(_on_boot_clock(grant, now)))
            except ValueError as error:
                log.warning("a lease is lost", extra={"prefix": prefix_id, "error": str(error)})
        return leases

    def note(self, record: Record, now: Moment) -> None:
        """Write one down, or that it is gone; what can't be written now is tried by `write`."""
        lease = record.lease
        self._unwritten[record.prefix_id] = (
            None if lease is None else trace.spelled(_on_wall_clock(lease.grant, now))
        )
        self.write()

    def write(self) -> None:
        """Write what is not written yet; costs nothing if there is nothing."""
        if self._unwritten and self.attempt(lambda: self._journal.keep_leases(self._unwritten)):
            self._unwritten = {}


def _on_wall_clock(grant: Grant, now: Moment) -> Grant:
    until = grant.lifetime or Lifetime()
    return replace(
        grant,
        lifetime=Lifetime(now.wall_at(until.preferred_until_s), now.wall_at(until.valid_until_s)),
    )


def _on_boot_clock(grant: Grant, now: Moment) -> Grant:
    until = grant.lifetime or Lifetime()
    return replace(
        grant,
        lifetime=Lifetime(now.boot_at(until.preferred_until_s), now.boot_at(until.valid_until_s)),
    )
