"""The one text that is compiled."""

import re

from odm_agent.datapath import catalogue
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import c_text


def test_every_hook_is_a_program_of_the_text() -> None:
    defined = set(re.findall(r"^int (\w+)\(", c_text.amalgamated(), re.MULTILINE))
    assert defined == {*catalogue.ALL, creation.PROGRAM}


def test_no_local_include_is_left_and_lines_point_at_files() -> None:
    text = c_text.amalgamated()
    assert not re.search(r'^#include "', text, re.MULTILINE)
    for path in c_text.folder().glob("*.[ch]"):
        assert f'#line 1 "bpf/{path.name}"' in text, f"{path.name} is not part of odm.c"


def test_hash_is_that_of_the_text() -> None:
    assert len(c_text.source_hash()) == 32
    assert c_text.source_hash() == c_text.source_hash()
