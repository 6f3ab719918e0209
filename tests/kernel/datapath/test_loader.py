"""What the loader leaves out, it leaves out for a reason of the kernel's."""

from pathlib import Path

import pytest

from odm_agent import isolated
from odm_agent.datapath import catalogue

needs_mptcp = pytest.mark.skipif(
    not Path("/proc/sys/net/mptcp").is_dir() or not Path("/sys/kernel/btf/vmlinux").is_file(),
    reason="this kernel has no MPTCP, or no type information",
)


@needs_mptcp
def test_programs_serve_mptcp_where_the_running_kernel_has_it() -> None:
    """The verifier may give up on these alone, which are the longest."""
    done = isolated.run(isolated.LOADER, "--check", timeout_s=100)
    assert done.returncode == 0, done.stderr
    assert catalogue.NO_MPTCP not in done.stdout
