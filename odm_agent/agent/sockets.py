"""Live sockets with the class and type that the datapath gives them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address
from pathlib import Path

from odm_agent.agent.state import State
from odm_agent.control.answers import SocketView
from odm_agent.core.model import UNCLASSIFIED, AddressType, ClassPolicy, Family, IPAddress
from odm_agent.datapath import abi
from odm_agent.kernel import cgroups as kernel_cgroups
from odm_agent.kernel.sock_diag import SocketInfo, owners, sockets
from odm_agent.text import printable


@dataclass(frozen=True, slots=True)
class TypedSocket:
    """A socket, the class of its creator's cgroup, and a type: asked for, or that of its source."""

    info: SocketInfo
    class_id: int
    class_name: str
    type: AddressType
    cgroup: str
    #: Its storage says that the programs count what it holds, and that it holds something.
    counted: bool = False


def typed_sockets(state: State) -> list[TypedSocket]:
    """All sockets of the namespace, but for what is left of those that are nobody's any more."""
    paths: dict[int, str] = {}
    stored = {row.cookie: row for row in state.datapath.census()}
    found = []
    for info in sockets(state.datapath.storage_fd):
        if info.remnant:
            continue
        if info.cgroup_id not in paths:
            paths[info.cgroup_id] = _path(state.attached_to, info.cgroup_id)
        path = paths[info.cgroup_id]
        name = state.cgroups.class_name_of(path, state.engine.classes) if path else None
        class_id = _ids(state).get(name or "", UNCLASSIFIED)
        row = stored.get(info.cookie)
        type_ = (row.asked if row else None) or _asked(info) or _type_of(state, info)
        counted = row is not None and row.held is not None
        found.append(TypedSocket(info, class_id, name or "unclassified", type_, path, counted))
    return found


def classes_of(state: State) -> Callable[[SocketInfo], ClassPolicy | None]:
    """What tells the class of the cgroup in which a socket was made, by that cgroup's name now;
    None: it has none, or is gone. It looks each cgroup up once.
    """
    by_name = {policy.name: policy for policy in state.engine.classes.values()}

    @cache
    def of_cgroup(cgroup_id: int) -> ClassPolicy | None:
        path = _path(state.attached_to, cgroup_id)
        name = state.cgroups.class_name_of(path, state.engine.classes) if path else None
        return by_name.get(name) if name is not None else None

    return lambda info: of_cgroup(info.cgroup_id)


def count_live(state: State) -> Mapping[tuple[int, AddressType, Family], int]:
    """Tracked sockets as the programs count them, by class id, type and family of the address."""
    counts: Counter[tuple[int, AddressType, Family]] = Counter()
    for key, live in state.datapath.live().items():
        counts[key.class_id, key.type, Family.of(key.address)] += live
    return +counts


def count_by_type(found: Iterable[TypedSocket]) -> Mapping[tuple[int, AddressType, Family], int]:
    """How many by class id, type and family of the source."""
    return Counter((each.class_id, each.type, Family.of(each.info.local)) for each in found)


def count_by_address(state: State, found: Iterable[TypedSocket]) -> Mapping[IPAddress, int]:
    """How many by source address: tracked ones as the programs count them, the rest as listed."""
    counts = Counter(each.info.local for each in found if not each.counted)
    for key, live in state.datapath.live().items():
        counts[key.address] += live
    return counts


def views(found: list[TypedSocket]) -> list[SocketView]:
    """As `odm-agent sockets` shows them."""
    holders = owners({each.info.inode for each in found if each.info.inode})
    return [_view(each, *holders.get(each.info.inode, (0, ""))) for each in found]


def _view(each: TypedSocket, pid: int, process: str) -> SocketView:
    info = each.info
    return SocketView(
        cookie=info.cookie,
        pid=pid,
        process=printable(process),
        class_=each.class_name,
        type=each.type.word,
        protocol=info.protocol,
        state=info.state,
        source=_endpoint(info.local, info.local_port),
        destination=_endpoint(info.remote, info.remote_port) if info.remote_port else "",
        cgroup=printable(each.cgroup),
    )


def _endpoint(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def _path(root: Path, cgroup_id: int) -> str:
    """The cgroup's path below the attach point; empty if it is gone or elsewhere."""
    path = kernel_cgroups.path_of(root, cgroup_id) if cgroup_id else None
    return str(path.relative_to(root)) if path is not None else ""


def _asked(info: SocketInfo) -> AddressType:
    if info.storage is None or len(info.storage) < 2:
        return AddressType.UNSPECIFIED
    return AddressType(info.storage[abi.Socket.type.offset])


def _type_of(state: State, info: SocketInfo) -> AddressType:
    """By the address; one that is everybody's has a type where the socket has our mark."""
    row = state.engine.table.span_of(info.local)
    if row is None and state.engine.numbers.of_mark(info.mark):
        row = next((r for r in state.engine.table if info.local in r.addresses), None)
    return row.prefix.type if row is not None else AddressType.UNSPECIFIED


def _ids(state: State) -> dict[str, int]:
    return {policy.name: policy.id for policy in state.engine.classes.values()}
