"""What is written to the journal, and is tried again as long as it can't be."""

import logging
from collections.abc import Callable

from odm_agent.core.errors import OdmError

log = logging.getLogger(__name__)


class JournalWork:
    """One kind of things that are written down, called `what` in the log."""

    def __init__(self, what: str) -> None:
        """Nothing has failed yet."""
        self._what = what
        #: Why the last attempt failed; None if all is written.
        self.trouble: str | None = None

    def attempt(self, write: Callable[[], object]) -> bool:
        """Whether it could be written. Why not is an alarm, and logged once."""
        try:
            write()
        except OdmError as error:
            if self.trouble is None:
                log.error("%s are not recorded", self._what, extra={"error": str(error)})
            self.trouble = str(error)
            return False
        self.trouble = None
        return True
