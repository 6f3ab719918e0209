"""Writes down which addresses there are, so that no fixed one is another after a restart."""

import logging

from odm_agent.core.errors import OdmError
from odm_agent.journal import Journal
from odm_agent.prefixes.memory import Memory
from odm_agent.prefixes.table import PrefixTable

log = logging.getLogger(__name__)


class AddressBook:
    """The journal's addresses. A journal that can't be written is an alarm, and is tried again."""

    def __init__(self, journal: Journal, recorded: Memory) -> None:
        self._journal = journal
        self._recorded = recorded
        self._written: PrefixTable | None = None
        #: Why the last attempt failed; None if all is written.
        self.trouble: str | None = None

    def write(self, table: PrefixTable) -> None:
        """Record what the table knows and the journal does not; costs nothing if it is the same."""
        if table is self._written:
            return
        known = table.remembered()
        try:
            self._journal.remember_addresses(self._recorded.given, known.given)
        except OdmError as error:
            if self.trouble is None:
                log.error("addresses are not recorded", extra={"error": str(error)})
            self.trouble = str(error)
            return
        self._recorded, self._written, self.trouble = known, table, None
