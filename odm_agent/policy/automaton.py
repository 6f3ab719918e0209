"""The patterns of all classes as what a program in the kernel can follow, name by name (pure).

Exact paths become a tree. All globs together become one automaton over the bytes of a path
(Shift-And: Baeza-Yates and Gonnet, 1992): bit N of its state stands behind the Nth character of all
globs. A byte moves each bit on by one if that character takes it, and leaves it where it is at a
`*`. So a name of n bytes takes n steps, whatever the patterns are.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from odm_agent.core.model import UNCLASSIFIED, ClassPolicy, Mode
from odm_agent.policy.globs import is_glob, parts_of

#: How many characters of globs there is room for.
MOST_BITS: Final = 1024
#: Where the tree of exact paths begins; 0 is nowhere.
ROOT: Final = 1

_SLASH: Final = frozenset(b"/")
_CONTINUED: Final = frozenset(range(0x80, 0xC0))
_ANY: Final = frozenset(range(256)) - _SLASH - _CONTINUED


@dataclass(frozen=True, slots=True)
class Step:
    """One component of an exact path; `class_id` is that of the path that ends here, if any."""

    node: int
    class_id: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """How far a cgroup's path fits: its node in the tree, and the state of the automaton."""

    node: int = 0
    globs: int = 0

    def __bool__(self) -> bool:
        return bool(self.node or self.globs)


@dataclass(slots=True)
class Automaton:
    """Integers are sets of bits. `undecided` names globs that it knows only roughly.

    Where only such a glob fits, and its class fails closed, the class is the undecided one.
    """

    steps: dict[tuple[int, bytes], Step] = field(default_factory=dict)
    start: int = 0
    ends: int = 0
    delegated: int = 0
    stars: int = 0
    wide: int = 0
    moves: list[int] = field(default_factory=lambda: [0] * 256)
    class_ids: dict[int, int] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)
    generation: int = 0

    def read(self, state: int, data: bytes) -> int:
        """The state after more bytes of a path."""
        for byte in data:
            stays = 0
            if byte in _CONTINUED:
                stays = self.stars | self.wide
            elif byte not in _SLASH:
                stays = self.stars
            state = state << 1 & self.moves[byte] | state & stays
        return state

    def class_of(self, state: int) -> int | None:
        """The class id of the first glob that ends in this state."""
        ended = state & self.ends
        return self.class_ids[(ended & -ended).bit_length() - 1] if ended else None

    def below(self, position: Position, name: str) -> Position:
        """Where the cgroup of that name stands, one level below."""
        data = os.fsencode(name)
        step = self.steps.get((position.node, data))
        return Position(step.node if step else 0, self.read(position.globs, data + b"/"))

    def position(self, path: Iterable[str]) -> Position:
        """Where the cgroup of these components below the root stands; the root has none."""
        at = Position(ROOT, self.start)
        for name in path:
            at = self.below(at, name)
        return at


def compiled(policies: Iterable[ClassPolicy], undecided_class: int) -> Automaton:
    """The patterns of these classes, in the order in which they count.

    `undecided_class` is for cgroups of which only the agent can tell the class.
    """
    made = Automaton()
    rough: list[tuple[ClassPolicy, str, list[_Character]]] = []
    nodes = ROOT
    size = 0
    for policy in policies:
        class_id = UNCLASSIFIED if policy.mode is Mode.OFF else policy.id
        for pattern in policy.cgroups:
            parts = parts_of(pattern)
            if not parts or not {".", ".."}.isdisjoint(parts):
                continue
            if not is_glob(pattern):
                nodes = _add_path(made, parts, class_id, nodes)
                continue
            characters, exact = _characters(pattern)
            if size + len(characters) > MOST_BITS:
                characters, exact = _shape(pattern), False
            if exact:
                size = _add_glob(made, characters, class_id, size, delegated=policy.delegated)
            else:
                rough.append((policy, pattern, characters))
    for policy, pattern, characters in rough:
        made.undecided.append(pattern)
        is_closed = policy.fail_closed and policy.mode is Mode.ENFORCE
        if is_closed and size + len(characters) <= MOST_BITS:
            size = _add_glob(made, characters, undecided_class, size, delegated=policy.delegated)
    made.generation = _digest(made)
    return made


@dataclass(frozen=True, slots=True)
class _Character:
    """One character of a glob: the bytes that it takes; `star`: behind a `*`.

    `wide`: the further bytes of a character of UTF-8 are taken, too. The end takes nothing.
    """

    takes: frozenset[int] = frozenset()
    wide: bool = False
    star: bool = False


def _add_path(made: Automaton, parts: tuple[str, ...], class_id: int, nodes: int) -> int:
    """Add an exact path to the tree of `nodes` nodes; how many there are then."""
    node = ROOT
    for depth, part in enumerate(parts, 1):
        key = (node, os.fsencode(part))
        step = made.steps.get(key)
        if step is None:
            nodes += 1
            step = made.steps[key] = Step(nodes)
        if depth == len(parts) and step.class_id is None:  # the first class that names it has it
            made.steps[key] = Step(step.node, class_id)
        node = step.node
    return nodes


def _add_glob(
    made: Automaton, characters: list[_Character], class_id: int, first: int, *, delegated: bool
) -> int:
    """Add a glob at the bit `first`; the next free one."""
    made.start |= 1 << first
    for at, character in enumerate(characters, first):
        here, behind = 1 << at, 1 << at + 1
        if character.star:
            made.stars |= here
        if character.wide:
            made.wide |= behind
        for byte in character.takes:
            made.moves[byte] |= behind
    end = first + len(characters) - 1
    made.ends |= 1 << end
    made.class_ids[end] = class_id
    if delegated:
        made.delegated |= (2 << end) - (1 << first)
    return end + 1


def _characters(pattern: str) -> tuple[list[_Character], bool]:
    """The characters of a glob, as fnmatch reads it, and its end; whether they say all of it.

    A set that holds what is not ASCII is taken for any character.
    """
    found: list[_Character] = []
    star, exact = False, True
    for number, part in enumerate(parts_of(pattern)):
        if number:
            found.append(_Character(_SLASH, star=star))
            star = False
        for piece in _pieces(part):
            if piece == "*":
                star = True
                continue
            if len(piece) > 1 and piece.isascii():
                found.append(_set(piece, star=star))
            elif len(piece) > 1 or piece == "?":
                exact &= piece == "?"
                found.append(_Character(_ANY, wide=True, star=star))
            else:
                found += _literal(piece, star=star)
            star = False
    return [*found, _Character(star=star)], exact


def _shape(pattern: str) -> list[_Character]:
    """A glob of which only the number of components is left."""
    slashes = len(parts_of(pattern)) - 1
    return [*[_Character(_SLASH, star=True)] * slashes, _Character(star=True)]


def _literal(text: str, *, star: bool) -> Iterator[_Character]:
    """Characters that stand for themselves, the first of them behind a `*` if `star`."""
    for byte in os.fsencode(text):
        yield _Character(frozenset((byte,)), star=star)
        star = False


def _set(piece: str, *, star: bool) -> _Character:
    takes = frozenset(byte for byte in range(1, 128) if fnmatchcase(chr(byte), piece)) - _SLASH
    others = fnmatchcase(
        "\N{LATIN SMALL LETTER E WITH ACUTE}", piece
    )  # it says what it does not hold
    if others:
        takes |= _ANY - frozenset(range(128))
    return _Character(takes, wide=others, star=star)


def _pieces(part: str) -> Iterator[str]:
    """A component cut into `*`, `?`, sets, and single characters."""
    at = 0
    while at < len(part):
        end = at + 1
        if part[at] == "[":
            # A `]` right behind the start (or the `!`) belongs to the set.
            first = at + 2 if part[at + 1 : at + 2] == "!" else at + 1
            close = part.find("]", first + 1)
            if close >= 0:
                end = close + 1
        yield part[at:end]
        at = end


def _digest(made: Automaton) -> int:
    """A number for what was compiled, never 0."""
    parts = (
        sorted((key, step.node, step.class_id) for key, step in made.steps.items()),
        (made.start, made.ends, made.delegated, made.stars, made.wide, made.moves),
        sorted(made.class_ids.items()),
    )
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") | 1
