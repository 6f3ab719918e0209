"""Which numbers of classes and prefixes something in maps or kernel still carries."""

from collections.abc import Iterator

from odm_agent.core.host import HostState
from odm_agent.core.numbering import Kind
from odm_agent.datapath.maps.writer import MapWriter
from odm_agent.kernel import sock_diag
from odm_agent.prefixes.numbers import Numbers


def carried(datapath: MapWriter, host: HostState, numbers: Numbers) -> dict[Kind, frozenset[int]]:
    """The numbers that maps, sockets, rules and routes carry now; `host` is as last read.

    Nothing tells the marks of ping sockets, and of UDP sockets that were disconnected: hooks choose
    anew when the latter are used, and egress holds every source against its class. Raises
    KernelError, DatapathError.
    """
    return {
        "class": frozenset(_classes(datapath)),
        "prefix": frozenset(_prefixes(datapath, host, numbers)),
    }


def _classes(datapath: MapWriter) -> Iterator[int]:
    rows = datapath.read()
    yield from rows.classes
    yield from (each.class_id for each in rows.prefixes.values())
    for row in datapath.classified().values():
        yield row.class_id
    for socket in datapath.census():
        yield socket.class_id
        yield socket.held_class
    yield from (class_id for class_id, _ in datapath.usage())
    yield from (key.class_id for key, count in datapath.live().items() if count)


def _prefixes(datapath: MapWriter, host: HostState, numbers: Numbers) -> Iterator[int]:
    rows = datapath.read()
    yield from rows.prefixes
    yield from (span.prefix_id for span in rows.spans.values())
    yield from (source.prefix_id for source in rows.sources.values())
    yield from rows.seats.values()
    for prefix_ids in rows.choices.values():
        yield from prefix_ids
    yield from (numbers.of_table(route.table) for route in host.routes)
    yield from (numbers.of_table(rule.table) for rule in host.rules)
    yield from (numbers.of_mark(mark) for mark in sock_diag.marks())
