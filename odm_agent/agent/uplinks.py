"""Spares untyped IPv6 connects the look at every typed address on `lo`.

The kernel considers all addresses of the namespace for an unbound socket, unless the interface that
it leaves by says use_oif_addrs_only. With few typed addresses that is not felt, and the setting is
left alone.
"""

import logging

from odm_agent.errors import KernelError
from odm_agent.host import HostState
from odm_agent.journal import Journal
from odm_agent.kernel import sysctl
from odm_agent.model import Family
from odm_agent.prefixes.table import CONFIGURED_AT_MOST, PrefixTable

log = logging.getLogger(__name__)


def wanted(table: PrefixTable, host: HostState) -> set[str]:
    """Uplinks of IPv6 prefixes that are to offer only their own addresses.

    Only such as have an untyped global address: without one the setting leaves nothing to offer.
    """
    typed = sum(len(r.configured) for r in table if r.prefix.family is Family.IPV6)
    if typed <= CONFIGURED_AT_MOST:
        return set()
    own = {
        a.interface
        for a in host.addresses
        if not (a.ours or a.deprecated or a.address.is_link_local or a.address.is_loopback)
        and a.address.version == 6
    }
    return {r.prefix.interface for r in table if r.prefix.family is Family.IPV6} & own


def settle(table: PrefixTable, host: HostState, journal: Journal) -> None:
    """Set what is wanted, having noted what was; put back what is not wanted any more."""
    names = {f"net/ipv6/conf/{each}/use_oif_addrs_only" for each in wanted(table, host)}
    changed = journal.sysctls()
    for name in names - changed.keys():
        try:
            before = sysctl.read(name)
            if before == "0":
                journal.remember_sysctl(name, before)
                sysctl.write(name, "1")
        except KernelError as error:
            log.warning("untyped connects stay slow", extra={"sysctl": name, "error": str(error)})
    for name in changed.keys() - names:
        try:
            sysctl.write(name, changed[name])
        except KernelError as error:
            log.info("not restored", extra={"sysctl": name, "error": str(error)})
        journal.forget_sysctl(name)
