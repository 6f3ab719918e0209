"""A machine on a clock that a test moves."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from odm_agent.core import machine
from odm_agent.core.clock import Moment
from odm_agent.core.events import Event, Tick


@dataclass(kw_only=True)
class Stepped(ABC):
    """The machine's state (`state`, which `put` changes), and both clocks."""

    #: After so many steps at one moment a machine is never done.
    most_steps: ClassVar[int]
    state: machine.State = field(init=False)
    boot_s: float = 100.0
    wall_s: float = 1_700_000_000.0

    @property
    def now(self) -> Moment:
        """This moment."""
        return Moment(self.boot_s, self.wall_s)

    @abstractmethod
    def put(self, event: Event) -> None:
        """The machine takes its step; what it wants is done at once."""

    def settle(self) -> None:
        """Until nothing is due now."""
        for _ in range(self.most_steps):
            due = machine.deadline(self.state)
            if due is None or due > self.boot_s:
                return
            self.put(Tick())
        raise AssertionError("the machine is never done")

    def pass_time(self, by_s: float) -> None:
        """On both clocks."""
        self.boot_s += by_s
        self.wall_s += by_s
