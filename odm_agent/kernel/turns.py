"""Work of several owners, done in turns: none waits for what another has brought about (pure)."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)


class Turns(Generic[Job]):
    """A queue per owner; `take` goes round. A job that waits already is not put in again."""

    def __init__(self) -> None:
        self._queues: OrderedDict[int, OrderedDict[Job, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def waiting(self, owner: int) -> int:
        """How many jobs of that owner wait."""
        return len(self._queues.get(owner, ()))

    def put(self, owner: int, job: Job, *, first: bool = False) -> None:
        """Add a job, behind those of its owner or before them."""
        queue = self._queues.setdefault(owner, OrderedDict())
        queue[job] = None
        if first:
            queue.move_to_end(job, last=False)

    def take(self) -> tuple[int, Job] | None:
        """The next job of the owner whose turn it is, and the owner; None: there is none."""
        if not self._queues:
            return None
        owner, queue = self._queues.popitem(last=False)
        job, _ = queue.popitem(last=False)
        if queue:
            self._queues[owner] = queue
        return owner, job
