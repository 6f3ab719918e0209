"""Writes down what was sent, at intervals, so that totals outlast maps, agent and boot."""

from collections.abc import Mapping

from odm_agent.agent.journal_work import JournalWork
from odm_agent.core.model import AddressType
from odm_agent.datapath.base import Sent
from odm_agent.journal import Counted, Journal

HOUR_S = 3600
Traffic = Mapping[tuple[int, AddressType], Sent]


class UsageBook(JournalWork):
    """The journal's totals, and how far the programs' counters are in them.

    The counters begin anew with new maps: one that is less than it was began at 0.
    """

    def __init__(self, journal: Journal) -> None:
        """Raises JournalError."""
        super().__init__("totals of what was sent")
        self._journal = journal
        self._recorded: dict[tuple[int, int], Counted] = journal.recorded()

    def begin(self, traffic: Traffic, *, anew: bool = False) -> None:
        """Note which counters have begun anew, before they have grown past what they were: all
        (`anew`), or those that are less. It is written down: the next agent may not see it.
        """
        gone = [key for key in self._recorded if anew or self._is_less(traffic, key)]
        for key in gone:
            del self._recorded[key]
        if gone:
            self.attempt(lambda: self._journal.forget_recorded(gone))

    def write(
        self,
        traffic: Traffic,
        names: Mapping[int, str],
        meters: Mapping[int, Sent],
        wall_s: float,
    ) -> None:
        """Record what was sent since the last time; what can't be is recorded the next time."""
        more = self._unrecorded(traffic, names)
        recorded = {(id_, int(type_)): (s.bytes, s.packets) for (id_, type_), s in traffic.items()}
        hour_s = int(wall_s) // HOUR_S * HOUR_S
        counted = {lease: (sent.bytes, sent.packets) for lease, sent in meters.items()}
        if self.attempt(lambda: self._journal.add_sent(hour_s, more, recorded, counted)):
            self._recorded = recorded

    def totals(
        self, traffic: Traffic, names: Mapping[int, str], since_s: float
    ) -> dict[tuple[str, AddressType], Sent]:
        """What was sent by class and type since then (Unix seconds). Raises JournalError."""
        sums = dict(self._journal.sent(int(since_s) // HOUR_S * HOUR_S))
        for sender, (bytes_, packets) in self._unrecorded(traffic, names).items():
            before = sums.get(sender, (0, 0))
            sums[sender] = (before[0] + bytes_, before[1] + packets)
        return {(name, AddressType(type_)): Sent(*each) for (name, type_), each in sums.items()}

    def _is_less(self, traffic: Traffic, key: tuple[int, int]) -> bool:
        bytes_, packets = self._recorded[key]
        now = traffic.get((key[0], AddressType(key[1])), Sent())
        return now.bytes < bytes_ or now.packets < packets

    def _unrecorded(
        self, traffic: Traffic, names: Mapping[int, str]
    ) -> dict[tuple[str, int], Counted]:
        more: dict[tuple[str, int], Counted] = {}
        for (class_id, type_), sent in traffic.items():
            bytes_, packets = self._recorded.get((class_id, int(type_)), (0, 0))
            if sent.bytes < bytes_:
                bytes_, packets = 0, 0
            if sent.packets > packets:
                name = names.get(class_id, "")
                before = more.get((name, int(type_)), (0, 0))
                more[name, int(type_)] = (
                    before[0] + sent.bytes - bytes_,
                    before[1] + sent.packets - packets,
                )
        return more
