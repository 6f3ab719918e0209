"""Where each prefix's pool lies in the array odm_slots."""

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.abi import MAX_POOL


class Slots:
    """A next-fit allocator over one array.

    A region that was given back is used again as late as possible: a hook that read the old pool
    word a moment ago must not find another prefix's address there.
    """

    def __init__(self, size: int = MAX_POOL) -> None:
        self._size = size
        self._taken: dict[int, tuple[int, int]] = {}
        self._next = 0

    def mark_used(self, owner: int, first: int, size: int) -> None:
        """Note a region that is in use already."""
        self._taken[owner] = (first, size)

    def release(self, owner: int) -> None:
        """Give a region back."""
        self._taken.pop(owner, None)

    def take(self, size: int) -> int:
        """The start of `size` free slots, in no region in use; `assign` makes it somebody's."""
        regions = sorted(self._taken.values())
        for start in (self._next, 0):
            first = start
            for taken, length in regions:
                if taken + length <= first:
                    continue
                if first + size <= taken:
                    break
                first = taken + length
            if first + size <= self._size:
                self._next = first + size
                return first
        raise DatapathError(
            f"no room for a pool of {size} addresses: all pools together hold at most"
            f" {self._size}; make `pool` smaller"
        )

    def assign(self, owner: int, first: int, size: int) -> None:
        """Make a taken region the owner's, in the place of the one it had."""
        self._taken[owner] = (first, size)
