"""The settings of the network namespace (sysctls) that are others while the agent needs them.

Interfaces offer only their own addresses (use_oif_addrs_only) where that is right: which they are,
and why, is in `prefixes.untyped`. And sockets may be bound to addresses that no interface has
(ip_nonlocal_bind), if the configuration says so. What a setting was is noted before it is changed,
and put back when it is not wanted any more, also by `detach` without a configuration.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link
from odm_agent.journal import Journal, JournalError
from odm_agent.kernel import sysctl
from odm_agent.prefixes.table import PrefixTable
from odm_agent.prefixes.untyped import shield

log = logging.getLogger(__name__)


_NONLOCAL_BIND: Final = "net/ipv6/ip_nonlocal_bind"


@dataclass
class HostSettings:
    """The settings; what was changed is in the journal.

    `_numbers` are those of the interfaces changed here, which an interface keeps when it is
    renamed, as it keeps the setting.
    """

    journal: Journal
    #: Whether sockets may be bound to what no interface has; it stays so as long as the agent runs.
    nonlocal_bind: bool = False
    #: Why the journal can't tell or be told what is changed; None: it can.
    trouble: str | None = None
    _numbers: dict[str, int] = field(default_factory=dict)

    def change(self, table: PrefixTable, host: HostState) -> None:
        """Set what is wanted: before addresses come that default selection must not see.

        Also again what somebody has put back meanwhile.
        """
        self.trouble = None
        for name, interface in sorted(self._wanted(table, host).items()):
            try:
                before = sysctl.read(name)
                if before != "0":
                    continue
                self.journal.remember_sysctl(name, before)
                sysctl.write(name, "1")
            except KernelError as error:  # gone meanwhile, or IPv6 is not there
                log.info("not changed", extra={"sysctl": name, "error": str(error)})
            except JournalError as error:  # nobody would know that it was changed
                self.trouble = str(error)
                return
            else:
                if interface is not None:
                    self._numbers[interface] = host.links[interface].index

    def put_back(self, table: PrefixTable, host: HostState) -> None:
        """Put back what is not wanted any more: after addresses have gone."""
        try:
            self._put_back(table, host)
        except JournalError as error:
            self.trouble = str(error)

    def _put_back(self, table: PrefixTable, host: HostState) -> None:
        self._follow_names(host.links)
        wanted = self._wanted(table, host)
        for name, before in self.journal.sysctls().items():
            if name in wanted:
                continue
            try:
                sysctl.write(name, before)
            except KernelError as error:
                log.info("not restored", extra={"sysctl": name, "error": str(error)})
            self.journal.forget_sysctl(name)

    def _wanted(self, table: PrefixTable, host: HostState) -> dict[str, str | None]:
        """The settings that are to be 1, each with the interface that it is one of, if it is."""
        wanted: dict[str, str | None] = {
            _setting(interface): interface for interface in shield(table, host).confined
        }
        return wanted | ({_NONLOCAL_BIND: None} if self.nonlocal_bind else {})

    def _follow_names(self, links: Mapping[str, Link]) -> None:
        """What was noted about an interface holds under the name that it has now."""
        names = {link.index: link.name for link in links.values()}
        changed = self.journal.sysctls()
        for old, number in list(self._numbers.items()):
            new = names.get(number)
            if new == old:
                continue
            del self._numbers[old]
            if new is not None and (before := changed.get(_setting(old))) is not None:
                self.journal.remember_sysctl(_setting(new), before)
                self.journal.forget_sysctl(_setting(old))
                self._numbers[new] = number


def _setting(interface: str) -> str:
    return f"net/ipv6/conf/{interface}/use_oif_addrs_only"
