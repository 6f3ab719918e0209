"""Cgroups that are of no class though a pattern names one for them, and why."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from odm_agent.core.model import ClassPolicy
from odm_agent.datapath import abi
from odm_agent.kernel.cgroups import Refused
from odm_agent.kernel.hierarchy import Known

log = logging.getLogger(__name__)

#: So many refusals of a class are told, the others counted.
_MOST_TOLD: Final = 10
#: So many different reasons are logged.
_MOST_LOGGED: Final = 1000


class LeftOut:
    """Those that are refused, as others than root could make them, and those that wait for room."""

    def __init__(self) -> None:
        #: What is told of them; `tell` makes it.
        self.refused: tuple[Refused, ...] = ()
        self._refusals: dict[str, dict[int, Refused]] = {}
        self._waiting: dict[int, dict[int, Known]] = {}
        #: By cgroup id: the class whose pattern names it.
        self._class_of: dict[int, ClassPolicy] = {}
        self._logged: set[tuple[str, str]] = set()

    def refuse(self, number: int, policy: ClassPolicy, refused: Refused) -> None:
        """One that may not be of the class; let in before, if it was left out."""
        self._refusals.setdefault(policy.name, {})[number] = refused
        self._class_of[number] = policy

    def wait(self, number: int, policy: ClassPolicy, known: Known) -> None:
        """One for which the class has no room; let in before, if it was left out."""
        self._waiting.setdefault(policy.id, {})[number] = known
        self._class_of[number] = policy

    def let_in(self, number: int) -> None:
        """It is decided about anew, or gone. Any cgroup's id will do."""
        if (policy := self._class_of.pop(number, None)) is not None:
            self._refusals.get(policy.name, {}).pop(number, None)
            self._waiting.get(policy.id, {}).pop(number, None)

    def first_waiting(self, class_id: int) -> tuple[int, Known] | None:
        """The one that has waited longest, by its id; it is let in by that."""
        waiting = self._waiting.get(class_id)
        if not waiting:
            return None
        number, known = next(iter(waiting.items()))
        self.let_in(number)
        return number, known

    def tell(self, policies: Mapping[str, ClassPolicy]) -> None:
        """Have `refused` say what is so now, and log what was not logged before."""
        self.refused = (*self._told_refusals(), *self._told_waiting(policies))
        for each in self.refused:
            key = each.pattern, each.reason.split(";")[0]
            if key not in self._logged and len(self._logged) < _MOST_LOGGED:
                self._logged.add(key)
                log.warning(
                    "cgroup not classified",
                    extra={"cgroup": each.path, "glob": each.pattern, "why": each.reason},
                )

    def _told_refusals(self) -> Iterator[Refused]:
        for refusals in self._refusals.values():
            some = list(islice(refusals.values(), _MOST_TOLD))
            if (more := len(refusals) - len(some)) > 0:
                last = some[-1]
                some[-1] = Refused(last.path, last.pattern, f"{last.reason}; so are {more} more")
            yield from some

    def _told_waiting(self, policies: Mapping[str, ClassPolicy]) -> Iterator[Refused]:
        present = {each.id for each in policies.values()}
        for class_id, waiting in self._waiting.items():
            if waiting and class_id in present:
                known = next(iter(waiting.values()))
                reason = (
                    f"{abi.MAX_DELEGATED} cgroups that others than root could make are of the"
                    f" class, those included that were removed but have sockets; {len(waiting)} are"
                    " left out"
                )
                yield Refused("/".join(known.parts), known.ended[0].pattern, reason)
