"""The kernel adapter: reads a network namespace and carries out actions in it."""

import errno
import itertools
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from odm_agent.errors import KernelError
from odm_agent.kernel import addresses, links, routes, rules
from odm_agent.kernel.wire import RefusedError, Wire
from odm_agent.model import (
    AddAddress,
    Address,
    AddRoute,
    AddRule,
    HostState,
    KernelAction,
    RemoveAddress,
    RemoveRoute,
    RemoveRule,
    Route,
    Rule,
)

_HINTS: Final = {
    errno.EPERM: "Run as root or with CAP_NET_ADMIN in this network namespace.",
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
        self._wire = Wire()

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
        """Close the netlink socket; what was installed stays."""
        self._wire.close()

    def read(self) -> HostState:
        """Everything as it is now; raises KernelError."""
        try:
            found = links.read(self._wire)
            names = {link.index: link.name for link in found}
            return HostState(
                links={link.name: link for link in found},
                addresses=tuple(addresses.read(self._wire, names, self._protocol)),
                routes=routes.read_ours(self._wire, names, self._protocol),
                rules=rules.read(self._wire, self._protocol),
                main_routes=routes.read_main(self._wire, names, self._protocol),
            )
        except RefusedError as refusal:
            raise _explained(
                "reading interfaces, addresses, routes and rules", refusal
            ) from refusal

    def apply(self, action: KernelAction) -> None:
        """Carry out one action; already done counts as done. Raises KernelError."""
        match action:
            case AddAddress(address):
                self._add_addresses([address])
            case RemoveAddress(address):
                self._remove_address(address)
            case AddRoute(route):
                self._add_route(route)
            case RemoveRoute(route):
                self._remove_route(route)
            case AddRule(rule):
                self._change(f"adding {_rule(rule)}", rules.add, rule)
            case RemoveRule(rule):
                self._change(f"removing {_rule(rule)}", rules.remove, rule)

    def apply_all(self, actions: Iterable[KernelAction]) -> None:
        """Carry out actions in their order; neighbouring AddAddress go to the kernel together.

        Raises KernelError at the first failure: of its batch all others were tried, nothing after.
        """
        for batched, run in itertools.groupby(actions, lambda each: isinstance(each, AddAddress)):
            if batched:
                self._add_addresses([each.address for each in run if isinstance(each, AddAddress)])
            else:
                for action in run:
                    self.apply(action)

    def _add_addresses(self, wanted: Sequence[Address]) -> None:
        doing = f"adding {_address(wanted[0])}"
        try:
            indexes = {
                name: links.index_of(self._wire, name)
                for name in {address.interface for address in wanted}
            }
            outcomes = addresses.add(self._wire, wanted, indexes, self._protocol)
        except RefusedError as refusal:
            raise _explained(doing, refusal) from refusal
        for address, outcome in zip(wanted, outcomes, strict=True):
            if outcome is not None:
                raise _explained(f"adding {_address(address)}", outcome) from outcome

    def _remove_address(self, address: Address) -> None:
        try:
            index = links.index_of(self._wire, address.interface)
            addresses.remove(self._wire, address, index)
        except RefusedError as refusal:
            if refusal.errno not in addresses.GONE:
                raise _explained(f"removing {_address(address)}", refusal) from refusal

    def _add_route(self, route: Route) -> None:
        try:
            index = self._index(route)
            routes.add(self._wire, route, index, _names(route, index), self._protocol)
        except RefusedError as refusal:
            raise _explained(f"adding {_route(route)}", refusal) from refusal

    def _remove_route(self, route: Route) -> None:
        try:
            index = self._index(route)
            routes.remove(self._wire, route, index, _names(route, index), self._protocol)
        except RefusedError as refusal:
            if refusal.errno not in routes.GONE:
                raise _explained(f"removing {_route(route)}", refusal) from refusal

    def _change(self, doing: str, change: Callable[[Wire, Rule, int], None], rule: Rule) -> None:
        try:
            change(self._wire, rule, self._protocol)
        except RefusedError as refusal:
            if change is rules.remove and refusal.errno == errno.ENOENT:
                return  # somebody was faster
            raise _explained(doing, refusal) from refusal

    def _index(self, route: Route) -> int | None:
        return None if route.interface is None else links.index_of(self._wire, route.interface)


def _names(route: Route, index: int | None) -> dict[int, str]:
    """Enough of a map of interfaces to recognise `route` when it is read back."""
    return {} if index is None or route.interface is None else {index: route.interface}


def _explained(doing: str, refusal: RefusedError) -> KernelError:
    name = errno.errorcode.get(refusal.errno, str(refusal.errno))
    hint = _HINTS.get(refusal.errno, _OTHERWISE)
    return KernelError(f"{doing}: the kernel refused with {name}: {refusal}. {hint}")


def _address(address: Address) -> str:
    return f"address {address.address}/{address.prefix_length} on {address.interface}"


def _route(route: Route) -> str:
    words = [route.kind.value, "route to", str(route.destination or "default")]
    if route.gateway is not None:
        words += ["via", str(route.gateway)]
    if route.interface is not None:
        words += ["dev", route.interface]
    return " ".join([*words, f"in table {route.table} (IPv{route.family.value})"])


def _rule(rule: Rule) -> str:
    what = f"from {rule.source}" if rule.source is not None else "from all"
    if rule.mask:
        what += f" fwmark {rule.mark:#x}/{rule.mask:#x}"
    return f"rule {rule.priority} {what} lookup {rule.table} (IPv{rule.family.value})"
