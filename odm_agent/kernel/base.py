"""What the agent needs of the kernel's addresses, routes and rules."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from odm_agent.core.actions import KernelAction
from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link, LocalAddress


class Kernel(Protocol):
    """One network namespace: `netlink.NetlinkKernel`; `fake.FakeKernel` in tests."""

    def read(self) -> HostState:
        """Everything as it is now; raises KernelError."""

    def read_links(self) -> dict[str, Link]:
        """The interfaces alone, as they are now; raises KernelError."""

    def read_addresses(self, among: Mapping[str, Link]) -> tuple[LocalAddress, ...]:
        """The addresses of these interfaces as they are now; raises KernelError."""

    def apply_all(self, actions: Sequence[KernelAction]) -> list[KernelError | None]:
        """Carry out actions of one kind, in their order; why each could not be (None: done).

        Already done counts as done, and one that fails stops no other.
        """
