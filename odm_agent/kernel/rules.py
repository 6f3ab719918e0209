"""Policy routing rules of ours, told by FRA_PROTOCOL."""

import errno
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import Final

from odm_agent.kernel.wire import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    RefusedError,
    Wire,
    attribute,
    attributes,
    number,
    u32,
)
from odm_agent.model import Family, Rule

_RTM_NEWRULE: Final = 32
_RTM_DELRULE: Final = 33
_RTM_GETRULE: Final = 34
_HEADER: Final = struct.Struct("=BBBBBBBBI")
_FRA_SRC: Final = 2
_FRA_PRIORITY: Final = 6
_FRA_FWMARK: Final = 10
_FRA_SUPPRESS_PREFIXLEN: Final = 14
_FRA_TABLE: Final = 15
_FRA_FWMASK: Final = 16
_FRA_PROTOCOL: Final = 21
_FR_ACT_TO_TBL: Final = 1
_NO_SUPPRESSION: Final = 0xFFFFFFFF
_FAMILIES: Final = {socket.AF_INET: Family.IPV4, socket.AF_INET6: Family.IPV6}


def read(wire: Wire, protocol: int) -> frozenset[Rule]:
    """All rules that carry `protocol`, of both families."""
    rules = set()
    for family in _FAMILIES:
        for part in wire.dump(Message(_RTM_GETRULE, _HEADER.pack(family, *[0] * 8))):
            found = attributes(part.body, _HEADER.size)
            if part.kind == _RTM_NEWRULE and number(found.get(_FRA_PROTOCOL)) == protocol:
                rules.add(_parse(part.body, found))
    return frozenset(rules)


def add(wire: Wire, rule: Rule, protocol: int) -> None:
    """Install a rule unless we have it; raises RefusedError.

    The kernel counts the protocol as part of a rule: the same of somebody else is another.
    """
    try:
        wire.request(Message(_RTM_NEWRULE, _body(rule, protocol), NLM_F_CREATE | NLM_F_EXCL))
    except RefusedError as refusal:
        if refusal.errno != errno.EEXIST:
            raise


def remove(wire: Wire, rule: Rule, protocol: int) -> None:
    """Remove a rule of ours if it is there; raises RefusedError.

    Looked up first: in a removal the kernel takes what is not said as "any".
    """
    if rule in read(wire, protocol):
        wire.request(Message(_RTM_DELRULE, _body(rule, protocol)))


def _body(rule: Rule, protocol: int) -> bytes:
    family = socket.AF_INET if rule.family is Family.IPV4 else socket.AF_INET6
    length = rule.source.prefixlen if rule.source is not None else 0
    body = _HEADER.pack(family, 0, length, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    if rule.source is not None:
        body += attribute(_FRA_SRC, rule.source.network_address.packed)
    if rule.mark or rule.mask:
        body += u32(_FRA_FWMARK, rule.mark) + u32(_FRA_FWMASK, rule.mask)
    if rule.suppress_prefix_length is not None:
        body += u32(_FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix_length)
    body += u32(_FRA_PRIORITY, rule.priority) + u32(_FRA_TABLE, rule.table)
    return body + attribute(_FRA_PROTOCOL, bytes([protocol]))


def _parse(body: bytes, found: dict[int, bytes]) -> Rule:
    family, _, source_length, *_ = _HEADER.unpack_from(body)
    source = found.get(_FRA_SRC)
    suppressed = number(found.get(_FRA_SUPPRESS_PREFIXLEN), _NO_SUPPRESSION)
    return Rule(
        family=_FAMILIES[family],
        priority=number(found.get(_FRA_PRIORITY)),
        table=number(found.get(_FRA_TABLE)),
        source=None if source is None else ip_network((ip_address(source), source_length)),
        mark=number(found.get(_FRA_FWMARK)),
        mask=number(found.get(_FRA_FWMASK)),
        suppress_prefix_length=None if suppressed == _NO_SUPPRESSION else suppressed,
    )
