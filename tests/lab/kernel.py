"""The kernel adapter as tests use it: any actions in a row, and the first failure is raised."""

from odm_agent.core.actions import KernelAction
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.reconcile.failure import together


class LabKernel(NetlinkKernel):
    """Raises what `apply_all` returns."""

    def apply(self, *actions: KernelAction) -> None:
        """Carry out actions in their order, what may be tried together at once."""
        start = 0
        while count := together(actions, start):
            for error in self.apply_all(actions[start : start + count]):
                if error is not None:
                    raise error
            start += count
