"""What the agent needs of the kernel's addresses, routes and rules."""

from typing import Protocol

from odm_agent.core.actions import KernelAction
from odm_agent.core.host import HostState


class Kernel(Protocol):
    """One network namespace. The real one is `netlink.NetlinkKernel`, the fake `memory`."""

    def read(self) -> HostState:
        """Everything as it is now; raises KernelError."""

    def apply(self, action: KernelAction) -> None:
        """Carry out one action; already done counts as done. Raises KernelError."""
