"""Who waits for the disk: a thread of its own, and nobody else."""

import asyncio
import threading

from odm_agent.agent.disk import Disk
from odm_agent.core.errors import OdmError


class Journal:
    """One whose disk takes as long as it is held, and may fail."""

    def __init__(self) -> None:
        self.written = self.on_disk = 0
        self.slow = threading.Event()
        self.slow.set()
        self.error: OdmError | None = None

    @property
    def is_flushed(self) -> bool:
        return self.on_disk == self.written

    def flush(self) -> None:
        reached = self.written
        assert self.slow.wait(10)
        if self.error is not None:
            raise self.error
        self.on_disk = reached


def test_the_loop_goes_on_while_the_disk_is_waited_for() -> None:
    async def agent() -> None:
        journal, troubles = Journal(), dict[str, str]()
        disk = Disk(journal, troubles)
        journal.written = 1
        journal.slow.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(disk.catch_up())
            await asyncio.sleep(0.01)
            journal.written = 2
            await disk.catch_up()
            assert journal.on_disk == 0 and not first.done()
            journal.slow.set()
        assert journal.on_disk == 2, "what was written meanwhile is brought there, too"
        disk.close()

    asyncio.run(agent())


def test_a_disk_that_fails_is_an_alarm_until_it_works_again() -> None:
    async def agent() -> None:
        journal, troubles = Journal(), dict[str, str]()
        disk = Disk(journal, troubles)
        journal.written, journal.error = 1, OdmError("the disk is broken")
        await disk.catch_up()
        assert list(troubles.values()) == ["the disk is broken"]
        journal.error = None
        await disk.catch_up()
        assert not troubles and journal.is_flushed
        disk.close()

    asyncio.run(agent())
