"""What the agent may still do once its programs are loaded (docs/architecture.md has the table)."""

import logging
from collections.abc import Set
from typing import Final

from odm_agent.config.schema import Config
from odm_agent.core.errors import KernelError
from odm_agent.kernel.capabilities import Capability, keep_only
from odm_agent.metrics.endpoint import split_address

log = logging.getLogger(__name__)

#: Each has a test that its job fails without it (tests/kernel/agent/test_privileges.py).
KEPT: Final = frozenset(
    {
        Capability.NET_ADMIN,  # addresses, routes, rules, guards; marks and storage in sock_diag
        Capability.BPF,  # sock_diag gives socket storage to nobody else; pins, where hardened
        Capability.NET_RAW,  # ARP probes of on-link addresses; router advertisements; echo
        Capability.DAC_READ_SEARCH,  # a cgroup's path by its number; others' /proc/PID/fd
        Capability.SYS_PTRACE,  # which process holds a socket
    }
)
#: Ports below are for CAP_NET_BIND_SERVICE by default.
_FIRST_FREE_PORT: Final = 1024


def needed(config: Config) -> Set[Capability]:
    """What an agent of this configuration goes on needing."""
    metrics = config.agent.metrics
    # A port of a DHCP client (546) is opened anew when its interface is replaced.
    if config.delegations or (metrics and split_address(metrics)[1] < _FIRST_FREE_PORT):
        return KEPT | {Capability.NET_BIND_SERVICE}
    return KEPT


def drop(config: Config) -> None:
    """Give up the rest, as far as it can be given up here; says what could not."""
    try:
        left = keep_only(needed(config))
    except KernelError as error:
        left = [str(error)]
    for each in left:
        log.warning("more privileges than needed are kept", extra={"why": each})
    if not left:
        log.debug("privileges dropped")
