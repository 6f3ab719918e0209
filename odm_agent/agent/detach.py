"""Takes away everything that we ever put into the kernel; needs neither agent nor configuration."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from odm_agent.actions import (
    KernelAction,
    PutChoice,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.config.schema import AgentConfig
from odm_agent.control.client import AgentNotRunning, ControlClient
from odm_agent.datapath import identity, orphans, pins
from odm_agent.datapath.maps import PinnedDatapath
from odm_agent.errors import KernelError, OdmError
from odm_agent.host import Address, HostState, RuleAction
from odm_agent.journal import Journal
from odm_agent.kernel import sysctl
from odm_agent.kernel.namespace import netns_cookie
from odm_agent.kernel.netlink import NetlinkKernel

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 10.0


def detach(agent: AgentConfig) -> Iterator[str]:
    """Stop the agent, remove addresses, routes and rules by their tag, then end enforcement.

    Of `agent` only the places matter; the tag is read from the pins, where there are any. Yields a
    sentence for each thing done. Enforcement goes last, so that no typed address is ever there
    without it. Raises OdmError, with what is left in place named.
    """
    folder = Path(agent.pin_dir)
    if stop_agent(Path(agent.socket), folder):
        yield "stopped the running agent"
    protocol = agent.protocol
    here = True
    if identity.read(folder) is not None:
        protocol, here = _withdraw(folder, protocol)
    if here:
        yield from _clean_namespace(protocol)
    else:
        yield (
            "left addresses, routes and rules as they are: they belong to another network"
            " namespace; run this there (nsenter --net=...) if it still exists"
        )
    yield from _restore_sysctls(Path(agent.state_dir) / "state.db")
    if pins.remove(folder):
        yield f"detached the programs and removed the pins in {folder}"
    if count := orphans.remove(netns_cookie()):
        yield f"detached {count} programs whose pins were lost"


def stop_agent(socket: Path, pin_dir: Path) -> bool:
    """End the agent that works on these pins, and wait until it has; whether there was one."""
    try:
        with ControlClient(socket) as client:
            if client.call("status")["pin_dir"] != str(pin_dir):
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


def _withdraw(pin_dir: Path, protocol: int) -> tuple[int, bool]:
    """Let hooks hand out nothing more; the tag that the agent used, and whether it ran here."""
    try:
        with PinnedDatapath(pin_dir) as datapath:
            for type_, family in datapath.read().choices:
                datapath.apply(PutChoice(type_, family, ()))
            settings = datapath.settings
            here = settings.home_netns in (0, netns_cookie())
            return settings.protocol or protocol, here
    except OdmError as error:  # half made, or of another version: all the more to be removed
        log.warning("pins that can't be read are removed", extra={"error": str(error)})
        return protocol, True


def _clean_namespace(protocol: int) -> Iterator[str]:
    with NetlinkKernel(protocol) as kernel:
        host = kernel.read()
        actions = list(_removals(host))
        for action in actions:
            kernel.apply(action)
        counts = (len(host.rules), len(host.routes), sum(a.ours for a in host.addresses))
    if any(counts):
        yield "removed {} rules, {} routes, {} addresses".format(*counts)


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


def _restore_sysctls(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    journal = Journal(path)
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
