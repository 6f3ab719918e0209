"""The numbers that the agent uses in the kernel, and how a prefix's own are counted off them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Numbers:
    """Routing table, rule priority, mark bits and protocol, as they are configured."""

    table_base: int
    rule_priority: int
    mark_mask: int
    protocol: int

    @property
    def last_prefix_id(self) -> int:
        """The highest prefix id that the mark can carry (0 means "no mark")."""
        return self.mark_mask >> self._shift

    def table(self, prefix_id: int) -> int:
        """The routing table of a prefix."""
        return self.table_base + prefix_id

    def mark(self, prefix_id: int) -> int:
        """The mark that selects the table; ValueError if the id does not fit in the mask."""
        if not 0 < prefix_id <= self.last_prefix_id:
            raise ValueError(f"prefix id {prefix_id} does not fit in mark mask {self.mark_mask:#x}")
        return prefix_id << self._shift

    def of_table(self, table: int) -> int:
        """The prefix whose routing table that is; 0: none's."""
        prefix_id = table - self.table_base
        return prefix_id if 0 < prefix_id <= self.last_prefix_id else 0

    def of_mark(self, mark: int) -> int:
        """The prefix whose mark these bits of a socket's mark hold; 0: none's."""
        return (mark & self.mark_mask) >> self._shift

    @property
    def _shift(self) -> int:
        return (self.mark_mask & -self.mark_mask).bit_length() - 1
