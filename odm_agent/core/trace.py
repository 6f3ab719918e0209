"""Events as text, one line each, so that what the debug log has can be replayed.

A value is written as the Python expression that makes it, of names in `_NAMES` alone; reading it
evaluates nothing else.
"""

import ast
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import UnionType
from typing import Any, Final, get_args

from odm_agent.core import demands, events, grants, host, leases, lifetimes, model
from odm_agent.core.clock import Moment
from odm_agent.core.events import Event

_TYPES: Final[tuple[Any, ...]] = (
    *get_args(Event),
    *(events.Dirty, demands.Demand, grants.Grant, grants.GrantKey, Moment),
    *(model.AddressType, model.Family, model.Placement, model.TypedPrefix, host.Address),
    *(leases.Lease, lifetimes.Lifetime, lifetimes.Phase, lifetimes.Terms, lifetimes.AddressLease),
    *(IPv4Address, IPv4Network, IPv6Address, IPv6Network, frozenset, float),
)
_NAMES: Final = {type_.__name__: type_ for type_ in _TYPES}


def line(event: Event, now: Moment) -> str:
    """An event and its moment as one line."""
    return spelled((now, event))


def events_of(lines: Iterable[str]) -> list[tuple[Moment, Event]]:
    """What `line` made lines of. Raises ValueError for anything else."""
    read = [value_of(each) for each in lines]
    for each in read:
        match each:
            case (Moment(), event) if isinstance(event, _EVENTS):
                pass
            case _:
                raise ValueError(f"this is no event: {each!r}")
    return read


_EVENTS: Final[UnionType] = Event


def spelled(value: object) -> str:
    """The expression that makes a value."""
    name = type(value).__name__
    match value:
        case Enum():
            return f"{name}({value.value!r})"
        case tuple():
            return f"({''.join(spelled(each) + ', ' for each in value)})"
        case frozenset():
            return f"frozenset(({''.join(sorted(spelled(each) + ', ' for each in value))}))"
        case dict():
            pairs = (f"{spelled(key)}: {spelled(each)}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case float():
            return f"float({str(value)!r})"
    if is_dataclass(value):
        given = ", ".join(f"{x.name}={spelled(getattr(value, x.name))}" for x in fields(value))
        return f"{name}({given})"
    return repr(value)


def value_of(text: str) -> Any:
    """The value that `spelled` made an expression of. Raises ValueError for anything else."""
    try:
        return _made(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, KeyError) as error:
        raise ValueError(f"this is no value of the core: {text!r}: {error}") from error


def _made(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Tuple(elts):
            return tuple(_made(each) for each in elts)
        case ast.Dict(keys, values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {_made(key): _made(value) for key, value in pairs if key is not None}
        case ast.Call(ast.Name(name), args, keywords) if all(each.arg for each in keywords):
            named = {each.arg or "": _made(each.value) for each in keywords}
            return _NAMES[name](*(_made(each) for each in args), **named)
    raise ValueError(f"this is no value of the core: {ast.unparse(node)}")
