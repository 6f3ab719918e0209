"""Whether an uplink is up but dead, by what is answered there: not told by one question alone."""

from dataclasses import dataclass, replace
from typing import Final

#: So many questions in a row that nobody answers make it dead, so many answers in a row alive.
DEAD_AFTER: Final = 3
ALIVE_AFTER: Final = 2


@dataclass(frozen=True, slots=True)
class Echo:
    """How it stands; `in_a_row` counts what speaks against that."""

    dead: bool = False
    in_a_row: int = 0

    def after(self, *, answered: bool) -> "Echo":
        """One question later."""
        if answered is not self.dead:
            return replace(self, in_a_row=0)
        enough = ALIVE_AFTER if self.dead else DEAD_AFTER
        if self.in_a_row + 1 < enough:
            return replace(self, in_a_row=self.in_a_row + 1)
        return Echo(dead=not self.dead)
