"""The one text that is compiled."""

import re

from odm_agent.datapath import catalogue, creation, source


def test_every_hook_is_a_program_of_the_text() -> None:
    defined = set(re.findall(r"^int (\w+)\(", source.amalgamated(), re.MULTILINE))
    assert defined == {*catalogue.ALL, creation.PROGRAM}


def test_no_local_include_is_left_and_lines_point_at_files() -> None:
    text = source.amalgamated()
    assert not re.search(r'^#include "', text, re.MULTILINE)
    for path in source.folder().glob("*.[ch]"):
        assert f'#line 1 "bpf/{path.name}"' in text, f"{path.name} is not part of odm.c"


def test_hash_is_that_of_the_text() -> None:
    assert len(source.source_hash()) == 32
    assert source.source_hash() == source.source_hash()
