"""The table of maps says what the compiler makes of bpf/odm_maps.h."""

import os
import re

from odm_agent.core import tables
from odm_agent.datapath import libbpf
from odm_agent.datapath.catalogue import BESIDE, MAPS, TOGETHER
from odm_agent.datapath.install import c_text
from odm_agent.datapath.maps.writer import FOLLOWED
from tests.lab.world import World


def test_table_names_the_maps_of_the_source() -> None:
    text = (c_text.folder() / "odm_maps.h").read_text()
    declared = re.findall(r'^ODM_MAP\("\w+",[^,]+,[^,]+,\s*(odm_\w+)', text, re.MULTILINE)
    declared += re.findall(r'"maps/ringbuf"\W+struct \w+\s+(\w+)', text)
    assert set(declared) == set(MAPS)


def test_table_has_the_shape_of_every_compiled_map(world: World) -> None:
    for name, shape in MAPS.items():
        fd = libbpf.get_pinned(world.agent.pins / name)
        try:
            assert shape.differences(libbpf.map_info(fd)) == [], name
        finally:
            os.close(fd)


def test_all_that_the_agent_writes_can_be_filled_before_a_switch() -> None:
    filled = {table.map_name for table in tables.ALL} | {
        *("odm_slots", "odm_caps", "odm_limits", "odm_untyped_blocks")
    }
    assert {n for n, shape in MAPS.items() if shape.maker == "agent"} == filled | FOLLOWED
    assert {name for group in TOGETHER for name in group} <= MAPS.keys()
    assert BESIDE.keys() | set(BESIDE.values()) <= MAPS.keys()
