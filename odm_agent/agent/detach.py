"""Takes away everything that one agent ever put into the kernel; needs neither it nor its file.

Whose things they are is read from its pins: the network namespace that they serve, in which the
work is then done, and the protocol number of its addresses, routes and rules.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.agent import mptcp
from odm_agent.agent.owner import journal_of, state_file
from odm_agent.config.schema import AgentConfig
from odm_agent.control.answers import Status
from odm_agent.control.client import AgentNotRunning, ControlClient
from odm_agent.core import tables
from odm_agent.core.actions import (
    KernelAction,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.errors import KernelError, OdmError
from odm_agent.core.host import Address, HostState, RuleAction
from odm_agent.datapath.install import deployment, lost_pins, pins, visible
from odm_agent.datapath.install.visible import Folder
from odm_agent.datapath.maps.writer import MapWriter
from odm_agent.datapath.trust import require_trust
from odm_agent.kernel import namespace, sysctl
from odm_agent.kernel.mptcp import PathManager
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.reconcile.failure import together

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Served:
    """Whom pins serve: the cookie of a network namespace, and the protocol number used there."""

    netns: int
    protocol: int
    #: Whether anything is pinned.
    is_pinned: bool = True


def detach(agent: AgentConfig) -> Iterator[str]:
    """Stop the agent, remove addresses, routes and rules by their tag, then end enforcement.

    Of `agent` only the places matter; whom it served is read from the pins, where there are any:
    else the network namespace is this one. Yields a sentence for each thing done. Enforcement goes
    last, so that no typed address is ever there without it. Raises OdmError, with what is left in
    place named; before anything was touched if it belongs to another agent.
    """
    folder = Path(agent.pin_dir)
    require_trust(folder)
    served = _served(folder, agent.protocol)
    found = lost_pins.find(served.netns)
    others = _others(found, folder, served)
    if others and not served.is_pinned:
        raise OdmError(
            f"nothing is pinned in {folder}; the programs that serve this network namespace are"
            f" pinned in {others[0]}. Nothing was touched; to remove those: {others[0].detach}"
        )
    if stop_agent(Path(agent.socket), folder, served.netns):
        yield "stopped the running agent"
    pins.require_unclaimed(folder)
    in_use = _lost_in_use(found, served)
    with namespace.inside(served.netns) as is_there:
        if not is_there:
            yield (
                "left addresses, routes, rules and sysctls as they are: no process and no mount"
                " that can be seen from here leads to the network namespace that they are in"
            )
        elif others:
            yield (
                "left addresses, routes and rules as they are: the programs pinned in"
                f" {others[0]} serve the same network namespace by the same protocol number"
            )
        else:
            _withdraw(folder)
            yield from _clean_namespace(served.protocol)
        if is_there:
            yield from _restore_sysctls(agent, served.netns)
        if pins.remove(folder):
            yield f"detached the programs and removed the pins in {folder}"
        if is_there and (count := lost_pins.remove(served.netns, served.protocol, in_use)):
            yield f"detached {count} programs whose pins were lost"
        for number in _lost_of_others(found, served):
            yield (
                "left programs whose pins were lost, since what they are for is marked with"
                f" protocol number {number}, not {served.protocol}; to remove them, call this"
                f" with a configuration that says `protocol = {number}`"
            )
    _leave_numbering(agent, served.netns)


def _served(folder: Path, protocol: int) -> _Served:
    here = namespace.netns_cookie()
    if not (folder / "odm_settings").exists():
        return _Served(here, protocol, is_pinned=pins.links_folder(folder).exists())
    try:
        row = deployment.read(folder)
    except OdmError as error:  # of another version: all the more to be removed
        log.warning("pins that can't be read are removed", extra={"error": str(error)})
        return _Served(here, protocol)
    return _Served(row.home_netns or here, row.protocol or protocol)


def _others(found: list[lost_pins.Found], folder: Path, served: _Served) -> list[Folder]:
    """Where else programs are pinned for the same namespace and protocol number."""
    places = {(each.pinned, each.protocol) for each in found}
    return sorted(
        pinned
        for pinned, protocol in places
        if pinned not in (None, Folder(folder)) and protocol == served.protocol
    )


def _lost_of_others(found: list[lost_pins.Found], served: _Served) -> list[int]:
    """The protocol numbers of other agents whose programs serve this namespace, pinned nowhere."""
    numbers = {each.protocol for each in found if each.pinned is None}
    return sorted(numbers - {served.protocol})


def _lost_in_use(found: list[lost_pins.Found], served: _Served) -> set[int]:
    """The settings maps of programs whose pins were lost, but with which an agent works.

    OdmError if there are no others: they are what would be removed.
    """
    pinned = {each.settings_id for each in found if each.pinned is not None}
    lost = {each.settings_id for each in found} - pinned
    in_use = {number: pids for number in lost if (pids := visible.holders(number))}
    if in_use and not served.is_pinned:
        pid = min(pid for pids in in_use.values() for pid in pids)
        raise OdmError(
            "the pins of the programs that serve this network namespace were lost, but process"
            f" {pid} works with them, and is not the agent at the control socket that is named"
            " here; end it, then run this again"
        )
    return set(in_use)


def stop_agent(socket: Path, pin_dir: Path, netns: int) -> bool:
    """End the agent that works on these pins, and wait until it has; whether there was one."""
    try:
        with ControlClient(socket) as client:
            status = client.ask("status", Status)
            if (status.pin_dir, status.namespace_cookie) != (str(pin_dir), netns):
                return False
            client.call("stop")
    except AgentNotRunning:
        return False
    give_up = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < give_up:
        if not socket.exists():
            return True
        time.sleep(0.02)
    raise OdmError("the running agent did not stop; stop it, then run this again")


def _withdraw(pin_dir: Path) -> None:
    """Let hooks hand out nothing more."""
    if not pin_dir.exists():
        return
    try:
        with MapWriter(pin_dir) as datapath:
            for key in datapath.read().choices:
                datapath.apply(tables.CHOICES.drop(key))
    except OdmError as error:  # half made, or of another version: all the more to be removed
        log.warning("pins that can't be read are removed", extra={"error": str(error)})


def _clean_namespace(protocol: int) -> Iterator[str]:
    with NetlinkKernel(protocol) as kernel:
        host = kernel.read()
        yield from _remove_endpoints(host)
        actions, start = list(_removals(host)), 0
        while count := together(actions, start):
            for error in kernel.apply_all(actions[start : start + count]):
                if error is not None:
                    raise error
            start += count
        counts = (len(host.rules), len(host.routes), sum(a.ours for a in host.addresses))
    if any(counts):
        yield "removed {} rules, {} routes, {} addresses".format(*counts)


def _remove_endpoints(host: HostState) -> Iterator[str]:
    """Subflows from our addresses are closed while packets still leave from there."""
    with PathManager() as manager:
        found = mptcp.ours(manager.endpoints(), host)
        for each in found:
            manager.remove(each)
    if found:
        yield f"removed {len(found)} endpoints of MPTCP"


def _removals(host: HostState) -> Iterator[KernelAction]:
    """Rules first, or packets would meet half a table; those that refuse what others send last."""
    refusals = [rule for rule in host.rules if rule.action is RuleAction.PROHIBIT]
    yield from (RemoveRule(rule) for rule in host.rules if rule not in refusals)
    yield from (RemoveRoute(route) for route in host.routes)
    for local in host.addresses:
        if local.ours:
            yield RemoveAddress(Address(local.address, local.prefix_length, local.interface))
    yield from (RemoveLabel(address) for address in host.labels)
    yield from (RemoveRule(rule) for rule in refusals)


def _restore_sysctls(agent: AgentConfig, netns: int) -> Iterator[str]:
    if not state_file(agent).exists():
        return
    journal = journal_of(agent, netns)
    try:
        for name, value in journal.sysctls().items():
            try:
                sysctl.write(name, value)
                yield f"set {name} back to {value}"
            except KernelError as error:  # its interface is gone, and the setting with it
                log.info("not restored", extra={"sysctl": name, "error": str(error)})
            journal.forget_sysctl(name)
    finally:
        journal.close()


def _leave_numbering(agent: AgentConfig, netns: int) -> None:
    """No map has a number any more: agents that share the state may make numbers free again."""
    if not state_file(agent).exists():
        return
    try:
        with closing(journal_of(agent, netns)) as journal:
            journal.leave_numbering()
    except OdmError as error:  # they wait until the host boots
        log.info("not noted in the state", extra={"error": str(error)})
