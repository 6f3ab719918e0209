"""Events as text, one line each, so that what the debug log has can be replayed.

A value is written as the Python expression that makes it, of names in `_NAMES` alone; reading it
evaluates nothing else, and makes nothing of which a field is of another type than declared.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from odm_agent.core import demands, events, grants, host, leases, lifetimes, model, outages
from odm_agent.core.clock import Moment
from odm_agent.core.events import Event

_TYPES: Final[tuple[Any, ...]] = (
    *get_args(Event),
    *(events.Dirty, events.Failure, demands.Demand, grants.Grant, grants.GrantKey, Moment),
    *(model.AddressType, model.Family, model.Placement, model.TypedPrefix, host.Address),
    *(model.Seat,),
    *(leases.Lease, lifetimes.Lifetime, lifetimes.Phase, lifetimes.Terms, lifetimes.AddressLease),
    *(outages.Outages, outages.Outage, outages.Way, outages.Tally, outages.Outcome, outages.Fate),
    *(IPv4Address, IPv4Network, IPv6Address, IPv6Network, float),
)
_NAMES: Final = {type_.__name__: type_ for type_ in _TYPES}
#: What is asked first, as most of a value is made of these: a lease is written down while somebody
#: waits for it.
_PLAIN: Final[frozenset[type]] = frozenset({str, int, bool, NoneType, bytes})


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
    type_: Any = type(value)
    if type_ in _PLAIN:
        return repr(value)
    name = type_.__name__
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
    if (names := _fields(type_)) is not None:
        given = ", ".join([f"{each}={spelled(getattr(value, each))}" for each in names])
        return f"{name}({given})"
    return repr(value)


@cache
def _fields(type_: Any) -> tuple[str, ...] | None:
    """The names of a dataclass's fields; None: it is none."""
    return tuple(each.name for each in fields(type_)) if is_dataclass(type_) else None


def value_of(text: str) -> Any:
    """The value that `spelled` made an expression of. Raises ValueError for anything else."""
    try:
        return _made(ast.parse(text.strip(), mode="eval").body)
    except Exception as error:  # whatever parser and constructors say of damaged text
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
        case ast.Call(ast.Name("frozenset"), [ast.Tuple() as elements], []):
            return frozenset(_made(elements))  # of a tuple alone: networks are iterable, too
        case ast.Call(ast.Name(name), args, keywords) if all(each.arg for each in keywords):
            named = {each.arg or "": _made(each.value) for each in keywords}
            return _checked(_NAMES[name](*(_made(each) for each in args), **named))
    raise ValueError(f"no such thing is written: {ast.unparse(node)}")


def _checked(value: Any) -> Any:
    """The value, if the fields that it may have are of the types that they should be."""
    type_: Any = type(value)
    for name, hint in _hints(type_).items():
        if not _fits(getattr(value, name), hint):
            raise ValueError(f"{type_.__name__}.{name} is {getattr(value, name)!r}")
    return value


@cache
def _hints(type_: Any) -> dict[str, Any]:
    """The fields of a type, if it has any."""
    return get_type_hints(type_) if is_dataclass(type_) else {}


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type, with all that it holds."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is tuple and isinstance(value, tuple):
        if args[1:] == (...,):
            return all(_fits(each, args[0]) for each in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if origin is frozenset and isinstance(value, frozenset):
        return all(_fits(each, args[0]) for each in value)
    if origin is Mapping and isinstance(value, Mapping):
        return all(_fits(key, args[0]) and _fits(each, args[1]) for key, each in value.items())
    if origin is not None:
        return False
    if isinstance(value, bool):
        return hint is bool
    if hint is float and isinstance(value, int):  # one that can be made a float
        return abs(value) < 1 << 63
    return isinstance(value, hint or NoneType)
