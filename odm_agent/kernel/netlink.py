"""The kernel adapter: reads a network namespace and carries out actions in it."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import TracebackType
from typing import Any, Final, Self

from pyroute2.netlink.exceptions import NetlinkError

from odm_agent.core.actions import (
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.errors import KernelError
from odm_agent.core.host import (
    Address,
    HostState,
    Link,
    LocalAddress,
    Route,
    Rule,
    RuleAction,
)
from odm_agent.kernel import addresses, labels, links, nexthops, routes, rules
from odm_agent.kernel.rtnetlink import Rtnetlink

_HINTS: Final = {
    errno.EPERM: "Run as root or with CAP_NET_ADMIN in this network namespace.",
    errno.EINTR: "Find out what changes them all the time (ip monitor).",
    errno.ENODEV: "The interface is not there; it is tried again when it appears.",
    errno.ENXIO: "The interface is not there; it is tried again when it appears.",
    errno.ENETDOWN: "The interface is down; bring it up (ip link set DEV up).",
    errno.ENETUNREACH: "The gateway cannot be reached by this interface; check both.",
    errno.EHOSTUNREACH: "The gateway cannot be reached by this interface; check both.",
    errno.EACCES: "IPv6 is off on the interface (sysctl net.ipv6.conf.DEV.disable_ipv6).",
    errno.EINVAL: "Check that gateway and source address fit the interface.",
    errno.EOPNOTSUPP: "The kernel is built without it (IPv6 or policy routing).",
    errno.EAFNOSUPPORT: "The kernel runs without this address family (ipv6.disable=1?).",
    errno.ENOBUFS: "The kernel is short of memory for it; it is tried again.",
}
_OTHERWISE: Final = "See the kernel's log (dmesg); it is tried again at the next change."


class NetlinkKernel:
    """The network namespace in which it is made, wherever the calling thread is later.

    `protocol` (8 bits) marks all that we make. Not for several threads at once.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        try:
            self._netlink = Rtnetlink()
        except OSError as error:
            raise KernelError(
                f"opening a netlink socket failed: {error.strerror}. "
                "Run on Linux with netlink allowed (systemd: RestrictAddressFamilies=AF_NETLINK)."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the netlink socket; what was installed stays. May be called twice."""
        self._netlink.close()

    def read(self) -> HostState:
        """Everything as it is now; raises KernelError."""
        try:
            with self._netlink.exchange():
                return self._read(self._netlink)
        except (NetlinkError, OSError) as error:
            raise _explained("reading interfaces, addresses, routes and rules", error) from error

    def read_links(self) -> dict[str, Link]:
        """The interfaces alone, as they are now; raises KernelError."""
        try:
            with self._netlink.exchange():
                return {link.name: link for link in links.read(self._netlink)}
        except (NetlinkError, OSError) as error:
            raise _explained("reading interfaces", error) from error

    def read_addresses(self, among: Mapping[str, Link]) -> tuple[LocalAddress, ...]:
        """The addresses of interfaces that are known already, as they are now; raises KernelError.

        One question instead of a dozen, for who waits for an address to be ready.
        """
        names = {link.index: link.name for link in among.values()}
        try:
            with self._netlink.exchange():
                found = addresses.read(self._netlink, names, self._protocol)
        except (NetlinkError, OSError) as error:
            raise _explained("reading addresses", error) from error
        return tuple(found)

    def apply_all(self, actions: Sequence[KernelAction]) -> list[KernelError | None]:
        """Carry out actions of one kind, in their order; why each could not be (None: done).

        Already done counts as done, and one that fails stops no other.
        """
        kind = _KINDS[type(actions[0])]
        things = [kind.thing(action) for action in actions]
        try:
            with self._netlink.exchange():
                outcomes = kind.carry_out(self._netlink, things, self._protocol)
        except (NetlinkError, OSError) as error:
            outcomes = [error] * len(things)
        return [
            None if error is None else _explained(f"{kind.doing} {kind.words(thing)}", error)
            for thing, error in zip(things, outcomes, strict=True)
        ]

    def _read(self, netlink: Rtnetlink) -> HostState:
        found = links.read(netlink)
        names = {link.index: link.name for link in found}
        ours, others = rules.read(netlink, self._protocol)
        objects = nexthops.read(netlink, names)
        tables = {(each.family, each.table) for each in others if each.action == "lookup"}
        labelled, policy = labels.read(netlink, names, self._protocol)
        return HostState(
            links={link.name: link for link in found},
            addresses=tuple(addresses.read(netlink, names, self._protocol)),
            routes=routes.read_ours(netlink, names, self._protocol),
            rules=ours,
            main_routes=routes.read_main(netlink, names, objects, self._protocol),
            foreign_rules=others,
            foreign_routes=routes.read_tables(netlink, names, objects, tables),
            labels=labelled,
            label_policy=policy,
        )


def _explained(doing: str, error: NetlinkError | OSError) -> KernelError:
    if isinstance(error, NetlinkError):
        code, what = error.code, "the kernel refused with"
    else:
        code, what = error.errno or errno.ETIMEDOUT, "the exchange with the kernel failed with"
    # Both kinds hold the errno, then the kernel's own words if it has any.
    words = error.args[1] if len(error.args) > 1 and error.args[1] else os.strerror(code)
    name, hint = errno.errorcode.get(code, code), _HINTS.get(code, _OTHERWISE)
    return KernelError(f"{doing}: {what} {name}: {words}. {hint}")


def _address(address: Address) -> str:
    return f"address {address.address}/{address.prefix_length} on {address.interface}"


def _route(route: Route) -> str:
    words = [route.kind.value, "route to", str(route.destination or "default")]
    if route.gateway is not None:
        words += ["via", str(route.gateway)]
    if route.interfaces:
        words += ["dev", ", ".join(sorted(route.interfaces))]
    return " ".join([*words, f"in table {route.table} (IPv{route.family.value})"])


def _rule(rule: Rule) -> str:
    what = f"from {rule.source}" if rule.source is not None else "from all"
    if rule.mask:
        what += f" fwmark {rule.mark:#x}/{rule.mask:#x}"
    if rule.local_only:
        what += " iif lo"
    then = f" {rule.table}" if rule.action is RuleAction.LOOKUP else ""
    return f"rule {rule.priority} {what} {rule.action.value}{then} (IPv{rule.family.value})"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How actions of one kind are carried out, and how one is named in an error."""

    doing: str
    carry_out: Callable[..., Sequence[NetlinkError | OSError | None]]
    thing: Callable[[KernelAction], Any]
    words: Callable[[Any], str]


_KINDS: Final[Mapping[type[KernelAction], _Kind]] = {
    AddAddress: _Kind("adding", addresses.add, attrgetter("address"), _address),
    RemoveAddress: _Kind("removing", addresses.remove, attrgetter("address"), _address),
    AddRoute: _Kind("adding", routes.add, attrgetter("route"), _route),
    RemoveRoute: _Kind("removing", routes.remove, attrgetter("route"), _route),
    AddRule: _Kind("adding", rules.add, attrgetter("rule"), _rule),
    RemoveRule: _Kind("removing", rules.remove, attrgetter("rule"), _rule),
    AddLabel: _Kind("labelling", labels.add, attrgetter("address"), str),
    RemoveLabel: _Kind("unlabelling", labels.remove, attrgetter("address"), str),
}
