"""What the verifier has to go through, on the kernel that runs."""

import os

from odm_agent.datapath import libbpf
from odm_agent.datapath.catalogue import CGROUP
from tests.lab.world import World

#: It gives up at a million instructions.
_LIMIT = 1_000_000


def test_the_verifier_has_room_for_what_is_added_to_each_hook(world: World) -> None:
    for name in CGROUP:
        link_fd = libbpf.get_pinned(world.agent.pins / "links" / name)
        prog_fd = libbpf.prog_by_id(libbpf.link_info(link_fd).prog_id)
        try:
            assert 0 < libbpf.prog_info(prog_fd).verified < _LIMIT // 4, name
        finally:
            os.close(prog_fd)
            os.close(link_fd)
