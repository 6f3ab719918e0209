"""Threads that do one job after the other, so that the event loop never waits for one."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

#: For so long a thread that computes keeps the others waiting, seconds. After each system call a
#: thread waits for its turn, and one answer makes dozens.
_TURN_S: Final = 0.0001


class Worker:
    """One thread with a queue of jobs. Made without one: it starts with the first job."""

    def __init__(self, name: str) -> None:
        sys.setswitchinterval(_TURN_S)
        self._thread = ThreadPoolExecutor(1, name)

    async def run(self, job: Callable[[], T]) -> T:
        """What `job` returns or raises, after the jobs before it.

        If the caller is cancelled, a job that has begun is done to its end all the same.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def close(self) -> None:
        """Wait for the job that is being done, and drop those that have not begun."""
        self._thread.shutdown(cancel_futures=True)
