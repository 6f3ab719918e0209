"""What happened lately, for `odm-agent events`: the last of it, in memory only."""

from collections import deque
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

from odm_agent.agent.bell import Bell
from odm_agent.control.answers import EventView, Happened

#: Of refusals, which programs bring about as often as they like, and of all else, so many are kept.
KEPT: Final = 500


class EventLog:
    """Numbered events, the oldest of which go; from any thread, and nobody ever waits for it."""

    def __init__(self) -> None:
        #: Rung with each event.
        self.bell = Bell()
        self._lock = Lock()
        self._newest = 0
        self._refusals = deque[EventView](maxlen=KEPT)
        self._others = deque[EventView](maxlen=KEPT)

    @property
    def newest(self) -> int:
        """The number of the last event; 0: nothing has happened."""
        return self._newest

    def note(self, event: Happened, wall_s: float, **facts: Any) -> None:
        """It happened then (Unix seconds)."""
        kept = self._refusals if event == "refused" else self._others
        time = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
        time = time.removesuffix("+00:00") + "Z"
        with self._lock:
            self._newest += 1
            kept.append(EventView(number=self._newest, time=time, event=event, **facts))
        self.bell.ring()

    def after(self, number: int) -> list[EventView]:
        """What is kept of all events after this one, in their order."""
        with self._lock:
            kept = [*self._refusals, *self._others]
        return sorted((e for e in kept if e.number > number), key=lambda e: e.number)
