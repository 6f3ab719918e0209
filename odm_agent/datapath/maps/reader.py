"""The maps of a pin folder, opened: what is set in them, and what the programs count there."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from odm_agent.core.demands import Wish
from odm_agent.core.model import AddressType
from odm_agent.datapath import abi, census, libbpf
from odm_agent.datapath.base import LiveKey, Sent, VerdictKey
from odm_agent.datapath.catalogue import MAPS
from odm_agent.datapath.trust import require_trust

#: Those that user space reads or writes.
_OPENED: Final = (
    *(name for name, shape in MAPS.items() if shape.maker == "agent"),
    "odm_settings",
    "odm_verdicts",
    "odm_dialogues",
    "odm_dialogue_turns",
    "odm_needs",
    "odm_usage",
    "odm_live",
    "odm_missed",
    "odm_members",
    "odm_meters",
    "odm_traffic",
    "odm_sockets",
)


class MapReader:
    """Those below a pin folder that user space reads or writes.

    Raises DatapathError if a pin is missing or of another shape.
    """

    def __init__(self, pin_dir: Path) -> None:
        require_trust(pin_dir)
        self._maps: dict[str, libbpf.Map] = {}
        self._pin_dir = pin_dir
        #: Held as the maps are, so that a file system mounted over the pins changes nothing. None:
        #: the programs in this folder are not in force yet.
        self._census_fd = libbpf.find_pinned(pin_dir / census.PIN)
        try:
            for name in _OPENED:
                shape, fd = MAPS[name], libbpf.get_pinned(pin_dir / name)
                self._maps[name] = libbpf.Map(fd, shape.key, shape.value, name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; what is pinned stays."""
        for each in self._maps.values():
            each.close()
        self._maps.clear()
        if self._census_fd is not None:
            os.close(self._census_fd)
            self._census_fd = None

    @property
    def storage_fd(self) -> int:
        """The map of socket storage, for sock_diag."""
        return self._maps["odm_sockets"].fd

    @property
    def settings(self) -> abi.Settings:
        """The row of settings as it is now."""
        row = self._maps["odm_settings"].get(0)
        assert isinstance(row, abi.Settings)  # an array has all its rows
        return row

    def verdicts(self) -> dict[VerdictKey, int]:
        """All verdicts counted since the maps were made, summed over the CPUs."""
        return {
            VerdictKey(
                class_id=key.class_id,
                type=AddressType(key.type),
                verdict=abi.Verdict(key.verdict).name.lower(),
                reason=abi.Reason(key.reason).name.lower().replace("_", "-"),
                hook=abi.Hook(key.hook).name.lower().replace("_", "-"),
            ): sum(values)
            for key, values in self._items("odm_verdicts")
        }

    def usage(self) -> dict[tuple[int, AddressType], int]:
        """Tracked sockets that live now, by class id and type; rows of none are left out."""
        return {
            (key // len(AddressType), AddressType(key % len(AddressType))): row.live
            for key, row in self._items("odm_usage")
            if row.live
        }

    def live(self) -> dict[LiveKey, int]:
        """Tracked sockets by the address that they hold; rows of none are kept until it goes."""
        return {
            LiveKey(abi.unpack_addr(key.addr), key.class_id, AddressType(key.type)): count
            for key, count in self._items("odm_live")
        }

    def traffic(self) -> dict[tuple[int, AddressType], Sent]:
        """What was sent since the maps were made, by class id and type; none is left out."""
        sums = (
            (key, sum(each.bytes for each in values), sum(each.packets for each in values))
            for key, values in self._items("odm_traffic")
        )
        return {
            (key // len(AddressType), AddressType(key % len(AddressType))): Sent(bytes_, packets)
            for key, bytes_, packets in sums
            if packets
        }

    def correct_usage(self, class_id: int, type_: AddressType, live: int) -> None:
        """Set a count that was found to be wrong; the row's lock is held for that."""
        index = abi.usage_index(class_id, type_)
        row = self._maps["odm_usage"].get(index)
        assert isinstance(row, abi.Usage)  # an array has all its rows
        row.live = live
        self._maps["odm_usage"].put(index, row, locked=True)

    def correct_live(self, key: LiveKey, live: int) -> None:
        """Set the count of an address that was found to be wrong; 0 forgets it."""
        packed = abi.LiveKey(addr=abi.pack_addr(key.address), class_id=key.class_id, type=key.type)
        if live:
            self._maps["odm_live"].put(packed, live)
        else:
            self._maps["odm_live"].delete(packed)

    def losses(self) -> dict[str, int]:
        """What could not be noted since the maps were made: verdict, socket, address, cgroup."""
        return {
            abi.Loss(key).name.lower(): sum(values)
            for key, values in self._items("odm_missed")
            if key < len(abi.Loss)
        }

    def ticket_wish(self, ticket: int) -> Wish | None:
        """What a socket wants that was given this ticket; None: none was, or it is forgotten."""
        found = abi.unpack_ticket(ticket)
        if found is None:
            return None
        share = self.settings.dialogue_share // abi.NEEDS_OF_CLASS
        index = (found.class_id - 1) * share + (found.turn & (share - 1))
        if not share or index >= abi.MAX_NEEDS or self._maps["odm_needs"].get(index) != ticket:
            return None
        return Wish((found.type, found.family), found.on_net, found.fresh)

    def census(self) -> list[census.CensusRow]:
        """Every socket with storage, of every namespace, now."""
        if self._census_fd is None:
            self._census_fd = libbpf.get_pinned(self._pin_dir / census.PIN)
        return census.take(self._census_fd)

    def _items(self, name: str) -> Any:
        return self._maps[name].items()
