"""Brings what the journal holds to the disk while work goes on: who waits, waits for no disk."""

import logging
from typing import Protocol

from odm_agent.agent.worker import Worker
from odm_agent.core.errors import OdmError

log = logging.getLogger(__name__)


class Flushed(Protocol):
    """The journal, as far as it is asked here."""

    @property
    def is_flushed(self) -> bool:
        """Whether all that was written survives a power failure."""

    def flush(self) -> None:
        """It does from now on. From any thread; raises OdmError."""


class Disk:
    """The thread that waits for the disk."""

    def __init__(self, journal: Flushed, troubles: dict[str, str]) -> None:
        """`troubles` is told what goes wrong; it is tried again when more was written."""
        self._journal, self._troubles = journal, troubles
        self._thread = Worker("disk")
        self._busy = False

    async def catch_up(self) -> None:
        """Flush what was written until now, unless that is being done: then that does it, too."""
        if self._busy:
            return
        self._busy = True
        try:
            while not self._journal.is_flushed:
                await self._thread.run(self._journal.flush)
            self._troubles.pop(_WHAT, None)
        except OdmError as error:
            if self._troubles.get(_WHAT) != str(error):
                log.error("the state may not survive a power failure", extra={"error": str(error)})
            self._troubles[_WHAT] = str(error)
        finally:
            self._busy = False

    def close(self) -> None:
        """End the thread."""
        self._thread.close()


_WHAT = "flushing the state"
