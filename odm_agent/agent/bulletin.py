"""Tells the log and the service manager what has changed, each change once."""

import logging
import time
from typing import Final

from odm_agent.agent import status
from odm_agent.agent.notify import notify
from odm_agent.agent.repairs import Repairs
from odm_agent.agent.state import State

log = logging.getLogger(__name__)

#: Actions that failed are logged where they fail.
_TOLD_ELSEWHERE: Final = "not done: "


class Bulletin:
    """Compares the state with what was told of it before."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._alarms: frozenset[str] = frozenset()
        self._told = ""
        self._repairs = Repairs()

    def tell(self, now_s: float) -> None:
        """One line for what was put back, for each alarm that is new, and for each that is over."""
        self._repairs.note(self._state.engine.take_vanished())
        if line := self._repairs.due(now_s):
            log.warning("put back what had gone or was changed: %s", line)
        alarms = status.alarms(self._state)
        now = frozenset(alarm for alarm in alarms if not alarm.startswith(_TOLD_ELSEWHERE))
        for alarm in sorted(now - self._alarms):
            log.warning("alarm: %s", alarm)
            self._state.events.note("alarm", time.time(), detail=alarm)
        for alarm in sorted(self._alarms - now):
            log.info("no alarm any more: %s", alarm)
            self._state.events.note("alarm-over", time.time(), detail=alarm)
        self._alarms = now
        self._tell_manager(alarms)

    def _tell_manager(self, alarms: list[str]) -> None:
        """STATUS of sd_notify(3), as `systemctl status` shows it."""
        ready, configured = len(status.offered(self._state)), len(self._state.engine.table.rows)
        words = [f"{ready} of {configured} prefixes ready"]
        if self._state.reloads.error is not None:
            words.append("the last reload was refused")
        if alarms:
            words.append(f"{len(alarms)} alarms, the first: {alarms[0]}")
        told = "; ".join(words).replace("\n", " ")
        if told != self._told:
            self._told = told
            notify(f"STATUS={told}")
