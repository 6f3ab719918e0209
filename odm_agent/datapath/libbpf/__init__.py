"""The few system calls of BPF that we need, by the system's libbpf: no compiler in here.

`library` loads it and tells its errors; `objects` finds and pins, `link` attaches, `map` reads and
writes rows, `btf` asks where the kernel keeps things, `create` makes maps, `program` loads what is
given as instructions. The datapath uses all by the one name.
"""

from odm_agent.datapath.libbpf.btf import offsets as struct_offsets
from odm_agent.datapath.libbpf.create import create_map, load_types, types_of
from odm_agent.datapath.libbpf.library import call, error_code, os_errors
from odm_agent.datapath.libbpf.link import (
    LINK_CGROUP,
    LINK_ITERATOR,
    LINK_TCX,
    LINK_TRACEPOINT,
    LINK_TRACING,
    LinkInfo,
    attached_to,
    iterator_create,
    iterator_read,
    link_create,
    link_detach,
    link_ifindex,
    link_info,
    link_update,
    links,
    tracepoint_create,
)
from odm_agent.datapath.libbpf.map import MAP_SK_STORAGE, Map, possible_cpus
from odm_agent.datapath.libbpf.objects import (
    MapInfo,
    ProgInfo,
    find_pinned,
    get_pinned,
    hold_map,
    map_by_id,
    map_info,
    opened,
    pin,
    prog_by_id,
    prog_info,
    programs,
)
from odm_agent.datapath.libbpf.program import INSTRUCTION, instruction, load

__all__ = [
    "INSTRUCTION",
    "LINK_CGROUP",
    "LINK_ITERATOR",
    "LINK_TCX",
    "LINK_TRACEPOINT",
    "LINK_TRACING",
    "MAP_SK_STORAGE",
    "LinkInfo",
    "Map",
    "MapInfo",
    "ProgInfo",
    "attached_to",
    "call",
    "create_map",
    "error_code",
    "find_pinned",
    "get_pinned",
    "hold_map",
    "instruction",
    "iterator_create",
    "iterator_read",
    "link_create",
    "link_detach",
    "link_ifindex",
    "link_info",
    "link_update",
    "links",
    "load",
    "load_types",
    "map_by_id",
    "map_info",
    "opened",
    "os_errors",
    "pin",
    "possible_cpus",
    "prog_by_id",
    "prog_info",
    "programs",
    "struct_offsets",
    "tracepoint_create",
    "types_of",
]
