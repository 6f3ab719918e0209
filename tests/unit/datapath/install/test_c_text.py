"""The one text that is compiled."""

import re

from odm_agent.datapath import catalogue
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import c_text, functions


def test_every_hook_is_a_program_of_the_text() -> None:
    defined = set(re.findall(r"^(?:int|u64) (\w+)\(", c_text.amalgamated(), re.MULTILINE))
    bodies = functions.declared(c_text.amalgamated()).values()
    assert defined == {*catalogue.ALL, creation.PROGRAM, *bodies}


def test_no_two_functions_have_one_number() -> None:
    text = c_text.amalgamated()
    numbers = re.findall(r"^ODM_FUNCTION\((\d+),", text, re.MULTILINE)
    assert len(numbers) == len(set(numbers)) == len(functions.declared(text))


def test_no_local_include_is_left_and_lines_point_at_files() -> None:
    text = c_text.amalgamated()
    assert not re.search(r'^#include "', text, re.MULTILINE)
    for path in c_text.folder().glob("*.[ch]"):
        assert f'#line 1 "bpf/{path.name}"' in text, f"{path.name} is not part of odm.c"


def test_hash_is_that_of_the_text() -> None:
    assert len(c_text.source_hash()) == 32
    assert c_text.source_hash() == c_text.source_hash()
