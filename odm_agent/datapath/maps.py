"""The pinned maps as the projection that they are."""

import ctypes as ct
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from odm_agent.actions import (
    DatapathAction,
    DropCgroup,
    DropClass,
    DropPrefix,
    DropSource,
    DropSpan,
    Guard,
    PutCgroup,
    PutChoice,
    PutClass,
    PutPrefix,
    PutSource,
    PutSpan,
    Unguard,
)
from odm_agent.datapath import abi, census, classes, frames, libbpf, pins
from odm_agent.datapath.base import LiveKey, VerdictKey
from odm_agent.datapath.pools import Slots
from odm_agent.datapath.shapes import MAPS
from odm_agent.errors import DatapathError
from odm_agent.model import (
    AddressType,
    CgroupRow,
    ClassPolicy,
    Family,
    PrefixRow,
    Projection,
    SourceRow,
    SpanRow,
)

#: Those that user space reads or writes.
_OPENED: Final = (
    "odm_settings",
    "odm_classes",
    "odm_cgroups",
    "odm_sources",
    "odm_spans",
    "odm_prefixes",
    "odm_pools",
    "odm_choices",
    "odm_verdicts",
    "odm_caps",
    "odm_usage",
    "odm_live",
    "odm_losses",
    "odm_sockets",
)


#: The maps whose rows `fill` writes.
FILLED: Final = frozenset(
    {
        "odm_spans",
        "odm_sources",
        "odm_prefixes",
        "odm_pools",
        "odm_choices",
        "odm_classes",
        "odm_caps",
        "odm_cgroups",
    }
)


class PinnedDatapath:
    """The maps below a pin folder, of which this process is the only writer.

    What they hold is read once, when they are opened; from then on a copy is kept beside, so that
    `read` costs next to nothing. Only interfaces are looked at each time: anybody may change them.
    Raises DatapathError if a pin is missing or of another shape.
    """

    def __init__(self, pin_dir: Path) -> None:
        pins.require_trust(pin_dir)
        self._maps: dict[str, libbpf.Map] = {}
        self._pin_dir = pin_dir
        try:
            for name in _OPENED:
                shape, fd = MAPS[name], libbpf.get_pinned(pin_dir / name)
                self._maps[name] = libbpf.Map(fd, shape.key, shape.value, name)
        except BaseException:
            self.close()
            raise
        self._slots = Slots()
        self._spans = {abi.unpack_span(k): _span_row(v) for k, v in self._items("odm_spans")}
        self._sources = {abi.unpack_addr(k): _source_row(v) for k, v in self._items("odm_sources")}
        self._prefixes = dict(self._read_prefixes())
        self._choices = dict(self._read_choices())
        self._classes = {
            key.value: classes.unpack(key.value, row, self._maps["odm_caps"])
            for key, row in self._items("odm_classes")
            if any(bytes(row))
        }
        self._cgroups = {k.value: _cgroup_row(v) for k, v in self._items("odm_cgroups")}

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

    def read(self) -> Projection:
        """The rows that are in the maps now."""
        return Projection(
            spans=dict(self._spans),
            sources=dict(self._sources),
            prefixes=dict(self._prefixes),
            choices=dict(self._choices),
            classes=dict(self._classes),
            cgroups=dict(self._cgroups),
            guards=frames.guarded(self._pin_dir),
        )

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
            (key.value // len(AddressType), AddressType(key.value % len(AddressType))): row.live
            for key, row in self._items("odm_usage")
            if row.live
        }

    def live(self) -> dict[LiveKey, int]:
        """Tracked sockets by the address that they hold; rows of none are kept until it goes."""
        return {
            LiveKey(abi.unpack_addr(key.addr), key.class_id, AddressType(key.type)): count.value
            for key, count in self._items("odm_live")
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
            self._maps["odm_live"].put(packed, ct.c_uint64(live))
        else:
            self._maps["odm_live"].delete(packed)

    def losses(self) -> dict[str, int]:
        """What could not be noted since the maps were made: verdict, socket, address."""
        return {
            abi.Loss(key.value).name.lower(): sum(values)
            for key, values in self._items("odm_losses")
        }

    def census(self) -> list[census.CensusRow]:
        """Every socket with storage, of every namespace, now."""
        return census.take(self._pin_dir)

    def socket_types(self, storage: bytes) -> tuple[AddressType, int]:
        """(type that it asked for, flags) of a socket's storage as sock_diag gives it."""
        row = abi.Socket.from_buffer_copy(storage.ljust(ct.sizeof(abi.Socket), b"\0"))
        return AddressType(row.type), int(row.flags)

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row; each is seen whole by the hooks or not at all."""
        match action:
            case PutSpan(network, row):
                self._maps["odm_spans"].put(abi.pack_span(network), _pack_span_row(row))
                self._spans[network] = row
                self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
            case DropSpan(network):
                self._maps["odm_spans"].delete(abi.pack_span(network))
                self._spans.pop(network, None)
                self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
            case PutSource(address, source):
                self._maps["odm_sources"].put(abi.pack_addr(address), _pack_source_row(source))
                self._sources[address] = source
            case DropSource(address):
                self._maps["odm_sources"].delete(abi.pack_addr(address))
                self._sources.pop(address, None)
            case PutPrefix(prefix_id, prefix):
                self._put_prefix(prefix_id, prefix)
            case DropPrefix(prefix_id):
                self._maps["odm_prefixes"].put(prefix_id, abi.Prefix())
                self._slots.release(prefix_id)
                self._prefixes.pop(prefix_id, None)
            case PutChoice():
                self._put_choice(action)
            case PutClass(policy):
                self._put_class(policy.id, policy)
            case DropClass(class_id):
                self._put_class(class_id, None)
            case PutCgroup(cgroup_id, cgroup):
                self._maps["odm_cgroups"].put(cgroup_id, _pack_cgroup_row(cgroup))
                self._cgroups[cgroup_id] = cgroup
                self._forget_resolved()
            case DropCgroup(cgroup_id):
                self._maps["odm_cgroups"].delete(cgroup_id)
                self._cgroups.pop(cgroup_id, None)
                self._forget_resolved()
            case Guard(interface):
                frames.guard(self._pin_dir, interface)
            case Unguard(interface):
                frames.unguard(self._pin_dir, interface)

    def fill(self, goal: Projection, fresh: Collection[str]) -> None:
        """Write the goal's rows into maps that no program reads yet, and into no other.

        What the programs in force work on stays as it is, for they go on meanwhile; so `goal` is
        what should be there *now*, and the maps that both read agree with it as far as they can.
        """
        for name in FILLED & frozenset(fresh):
            match name:
                case "odm_spans":
                    for network, span in goal.spans.items():
                        self._maps[name].put(abi.pack_span(network), _pack_span_row(span))
                        self._spans[network] = span
                case "odm_sources":
                    for address, source in goal.sources.items():
                        self._maps[name].put(abi.pack_addr(address), _pack_source_row(source))
                        self._sources[address] = source
                case "odm_prefixes":  # and odm_pools, which is fresh with it
                    for prefix_id, prefix in goal.prefixes.items():
                        self._put_prefix(prefix_id, prefix)
                case "odm_choices":
                    for (type_, family), prefix_ids in goal.choices.items():
                        self._put_choice(PutChoice(type_, family, prefix_ids))
                case "odm_classes":
                    for policy in goal.classes.values():
                        self._maps[name].put(policy.id, classes.pack(policy))
                        self._classes[policy.id] = policy
                case "odm_caps":
                    for policy in goal.classes.values():
                        for type_, cap in classes.caps(policy).items():
                            self._maps[name].put(abi.usage_index(policy.id, type_), cap)
                case "odm_cgroups":
                    for cgroup_id, cgroup in goal.cgroups.items():
                        self._maps[name].put(cgroup_id, _pack_cgroup_row(cgroup))
                        self._cgroups[cgroup_id] = cgroup
        self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
        self._count("strict_classes", sum(each.strict for each in self._classes.values()))
        self._count("watched_classes", sum(map(classes.is_watched, self._classes.values())))
        self._forget_resolved()

    # --- rows that take more than one write -------------------------------------------------

    def _put_prefix(self, prefix_id: int, row: PrefixRow) -> None:
        """The pool first, in slots that nobody reads, then the one word that points to it."""
        if not 0 < prefix_id < abi.MAX_PREFIXES:
            raise DatapathError(
                f"the maps hold {abi.MAX_PREFIXES - 1} prefixes, and prefix names are never given"
                " again: run `odm-agent detach` and remove the state folder to start anew"
            )
        first = self._slots.take(len(row.pool))
        for offset, address in enumerate(row.pool):
            self._maps["odm_pools"].put(first + offset, abi.pack_addr(address))
        self._maps["odm_prefixes"].put(
            prefix_id,
            abi.Prefix(
                type=row.type,
                family=abi.family_index(row.family),
                ifindex=row.ifindex,
                mark=row.mark,
                pool=abi.pack_pool(first, len(row.pool), row.configured),
            ),
        )
        self._slots.assign(prefix_id, first, len(row.pool))
        self._prefixes[prefix_id] = row

    def _put_choice(self, action: PutChoice) -> None:
        ids = action.prefix_ids[: abi.MAX_CHOICES]
        row = abi.Choice(count=len(ids))
        row.prefix_ids[: len(ids)] = ids
        self._maps["odm_choices"].put(abi.choice_index(action.type, action.family), row)
        if action.prefix_ids:
            self._choices[action.type, action.family] = action.prefix_ids
        else:
            self._choices.pop((action.type, action.family), None)

    def _put_class(self, class_id: int, policy: ClassPolicy | None) -> None:
        if not 0 <= class_id < abi.MAX_CLASSES:
            raise DatapathError(
                f"the maps hold {abi.MAX_CLASSES - 1} classes, and class names are never given"
                " again: run `odm-agent detach` and remove the state folder to start anew"
            )
        # A cap before the class that says it has some.
        for type_, cap in classes.caps(policy).items():
            self._maps["odm_caps"].put(abi.usage_index(class_id, type_), cap)
        self._maps["odm_classes"].put(class_id, classes.pack(policy))
        if policy is None:
            self._classes.pop(class_id, None)
        else:
            self._classes[class_id] = policy
        self._count("strict_classes", sum(each.strict for each in self._classes.values()))
        self._count("watched_classes", sum(map(classes.is_watched, self._classes.values())))

    def _count(self, field: str, value: int) -> None:
        """Keep a number that spares the hooks a lookup while it is 0."""
        settings = self.settings
        if getattr(settings, field) != value:
            setattr(settings, field, value)
            self._maps["odm_settings"].put(0, settings)

    def _forget_resolved(self) -> None:
        """Whatever a hook has resolved before is void from now on."""
        settings = self.settings
        settings.epoch += 1
        self._maps["odm_settings"].put(0, settings)

    # --- reading back what another process wrote ----------------------------------------------

    def _items(self, name: str) -> Any:
        return self._maps[name].items()

    def _read_prefixes(self) -> Any:
        for key, row in self._items("odm_prefixes"):
            first, size, configured = abi.unpack_pool(row.pool)
            if not size:
                continue
            self._slots.adopt(key.value, first, size)
            slots = (self._maps["odm_pools"].get(first + offset) for offset in range(size))
            pool = tuple(abi.unpack_addr(slot) for slot in slots if slot is not None)
            family = Family.IPV6 if row.family == abi.FamilyIndex.IPV6 else Family.IPV4
            yield (
                key.value,
                PrefixRow(AddressType(row.type), family, row.ifindex, row.mark, pool, configured),
            )

    def _read_choices(self) -> Any:
        rows: Mapping[int, Any] = {k.value: v for k, v in self._items("odm_choices")}
        for type_ in AddressType:
            for family in Family:
                row = rows[abi.choice_index(type_, family)]
                if row.count:
                    yield (type_, family), tuple(row.prefix_ids[: row.count])


def _span_row(row: abi.Source) -> SpanRow:
    return SpanRow(row.prefix_id, AddressType(row.type), bool(row.flags & abi.SOURCE_ANY_IP))


def _pack_span_row(row: SpanRow) -> abi.Source:
    flags = abi.SOURCE_ANY_IP if row.any_ip else 0
    return abi.Source(prefix_id=row.prefix_id, type=row.type, flags=flags)


def _source_row(row: abi.Source) -> SourceRow:
    return SourceRow(row.prefix_id, AddressType(row.type), bool(row.flags & abi.SOURCE_BROADCAST))


def _pack_source_row(row: SourceRow) -> abi.Source:
    flags = abi.SOURCE_BROADCAST if row.broadcast else 0
    return abi.Source(prefix_id=row.prefix_id, type=row.type, flags=flags)


def _cgroup_row(row: abi.Cgroup) -> CgroupRow:
    default = row.default_type
    return CgroupRow(
        row.class_id, None if default == abi.DEFAULT_OF_CLASS else AddressType(default)
    )


def _pack_cgroup_row(row: CgroupRow) -> abi.Cgroup:
    default = abi.DEFAULT_OF_CLASS if row.default is None else int(row.default)
    return abi.Cgroup(class_id=row.class_id, default_type=default)
