"""Writes down which addresses there are, so that no fixed one is another after a restart."""

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core.model import AddressType, IPAddress
from odm_agent.journal import Journal
from odm_agent.prefixes.memory import Memory
from odm_agent.prefixes.table import PrefixTable


class AddressBook(JournalWork):
    """The journal's addresses."""

    def __init__(self, journal: Journal, recorded: Memory) -> None:
        """`recorded` is what the journal has."""
        super().__init__("addresses")
        self._journal = journal
        self._recorded = recorded
        self._written: PrefixTable | None = None

    def write(self, table: PrefixTable) -> None:
        """Record what the table knows and the journal does not; costs nothing if it is the same."""
        if table is self._written:
            return
        known = table.remembered()
        before, now = self._recorded.given, known.given

        def remember() -> None:
            self._journal.remember_addresses(before, now)
            if any(_is_fixed(table, each) for each in now if before.get(each) != now[each]):
                self._journal.flush()

        if self.attempt(remember):
            self._recorded, self._written = known, table


def _is_fixed(table: PrefixTable, address: IPAddress) -> bool:
    """Whether not even a power failure may bring another one in its place."""
    row = table.span_of(address)
    return row is not None and row.prefix.type is AddressType.FIXED
