"""The table of programs is what bpf/ has, by libbpf's names: `check` asks that table alone."""

import ctypes as ct
import re
from typing import Final

import pytest

from odm_agent.cli.doctor import bpf
from odm_agent.datapath import catalogue
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import c_text

#: Programs are what is neither static nor the body of a function (bpf/odm_function.h).
_PROGRAM: Final = re.compile(r"^int ((?:odm|bpf_iter_)_\w+)(?<!_body)\(", re.MULTILINE)
#: libbpf's names of hooks that don't begin with "cgroup/".
_SECTIONS: Final = {
    "egress": "cgroup_skb/egress",
    "ingress": "cgroup_skb/ingress",
    "sock_ops": "sockops",
}


def test_table_names_the_programs_of_the_sources() -> None:
    written = set(_PROGRAM.findall(c_text.amalgamated()))
    assert {"odm_post_bind4", "odm_post_bind6"} <= written, "the control: programs are found"
    assert written == catalogue.ALL.keys() | {creation.PROGRAM}


@pytest.mark.parametrize("name", catalogue.CGROUP)
def test_each_hook_is_what_libbpf_knows_by_that_name(name: str) -> None:
    """A wrong number would have `check` look at another hook than the one that it names."""
    ours = catalogue.CGROUP[name]
    section = _SECTIONS.get(ours.hook, f"cgroup/{ours.hook}")
    type_, attach_type = ct.c_int(), ct.c_int()
    found = bpf.library().libbpf_prog_type_by_name(
        section.encode(), ct.byref(type_), ct.byref(attach_type)
    )
    assert found == 0, section
    assert (ours.type, ours.attach_type) == (type_.value, attach_type.value)
    assert name == f"odm_{ours.hook}"
