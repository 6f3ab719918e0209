"""Tells the log and the service manager what has changed, each change once."""

import logging
import time
from typing import Final

from odm_agent.agent import status
from odm_agent.agent.notify import notify
from odm_agent.agent.repairs import Repairs
from odm_agent.agent.standings import standings
from odm_agent.agent.state import State
from odm_agent.core.wandering import Wanderers

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
        #: The prefixes that stood first, by name, of those that wander.
        self._first: dict[Wanderers, str] = {}

    def tell(self, now_s: float) -> None:
        """One line for what was put back, for each prefix that stands first now, for each alarm
        that is new, and for each that is over.
        """
        self._tell_wandering()
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

    def _tell_wandering(self) -> None:
        """Another prefix stands first: by time, or since the former one can't serve any more."""
        for wanderers, standing in standings(self._state.engine).items():
            if standing.first is None:
                continue
            name, type_ = standing.first.prefix.name, standing.first.prefix.type.word
            before = self._first.get(wanderers)
            self._first[wanderers] = name
            if before not in (None, name):
                log.info(
                    "another prefix stands first",
                    extra={"prefix": name, "before": before, "type": type_},
                )
                detail = f"in the place of {before}"
                self._state.events.note(
                    "wandered", time.time(), prefix=name, type=type_, detail=detail
                )

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
