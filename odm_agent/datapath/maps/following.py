"""What the programs know of patterns: the rows of odm_globs, odm_steps and odm_folders.

Patterns change as a whole. Those that come are written beside those in force, under another
generation; one word in odm_settings makes the change; then the old rows go.
"""

import ctypes as ct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import abi, libbpf
from odm_agent.policy.automaton import Automaton, Position

_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Folder:
    """A cgroup below which a pattern may name one; `trusted`: nobody but root makes any there."""

    position: Position
    trusted: bool


def follow(
    maps: Mapping[str, libbpf.Map],
    automaton: Automaton,
    folders: Mapping[int, Folder],
    is_gone: Callable[[int], bool],
) -> None:
    """Let cgroups that appear from now on be classified by these patterns, below these cgroups.

    Rows that the programs have written meanwhile stay, but for cgroups that are gone. Raises
    DatapathError when a map is full; what was in force then is still.
    """
    settings = maps["odm_settings"].get(0)
    assert isinstance(settings, abi.Settings)  # an array has all its rows
    generation = automaton.generation
    anew = settings.patterns != generation or _slot_of(maps, generation) is None
    if anew:
        _write_patterns(maps, automaton, unused=_unused_slot(maps, settings.patterns))
    for cgroup_id, folder in folders.items():
        key = abi.FolderKey(cgroup=cgroup_id, generation=generation)
        row = _pack(folder)
        known = maps["odm_folders"].get(key)
        if known is None or bytes(known) != bytes(row):
            maps["odm_folders"].put(key, row)
    if anew:
        settings.patterns = generation
        maps["odm_settings"].put(0, settings)
        tidy(maps, generation, folders, is_gone)


def tidy(
    maps: Mapping[str, libbpf.Map],
    generation: int,
    folders: Mapping[int, Folder],
    is_gone: Callable[[int], bool],
) -> None:
    """Remove what other patterns have left, and cgroups that went unseen; count what is left."""
    for step, _ in list(maps["odm_steps"].items()):
        if step.generation != generation:
            maps["odm_steps"].delete(step)
    foreign = 0
    for key, row in list(maps["odm_folders"].items()):
        if key.generation != generation or (key.cgroup not in folders and is_gone(key.cgroup)):
            maps["odm_folders"].delete(key)
        else:
            foreign += not row.flags & abi.FOLDER_TRUSTED
    maps["odm_members"].put(abi.FOREIGN_FOLDERS, foreign)


def _slot_of(maps: Mapping[str, libbpf.Map], generation: int) -> int | None:
    slots = (slot for slot in range(2) if _generation_at(maps, slot) == generation)
    return next(slots, None)


def _unused_slot(maps: Mapping[str, libbpf.Map], in_force: int) -> int:
    return 1 if _generation_at(maps, 0) == in_force else 0


def _generation_at(maps: Mapping[str, libbpf.Map], slot: int) -> int:
    row = maps["odm_globs"].get(slot)
    return int(row.generation) if row is not None else 0


def _write_patterns(maps: Mapping[str, libbpf.Map], automaton: Automaton, *, unused: int) -> None:
    if len(automaton.steps) > abi.MAX_STEPS // 2:  # old and new ones stand side by side
        raise DatapathError(
            f"the classes' exact paths have more than {abi.MAX_STEPS // 2} components together;"
            " classify cgroups further up, or by a glob"
        )
    maps["odm_globs"].put(unused, _pack_globs(automaton))
    for (node, name), step in automaton.steps.items():
        ends = step.class_id is not None
        maps["odm_steps"].put(
            abi.StepKey(generation=automaton.generation, node=node, name=name),
            abi.Step(
                node=step.node,
                class_id=step.class_id or 0,
                flags=abi.STEP_ENDS if ends else 0,
            ),
        )


def _pack(folder: Folder) -> abi.Folder:
    flags = abi.FOLDER_TRUSTED if folder.trusted else 0
    flags |= abi.FOLDER_GLOBS if folder.position.globs else 0
    return abi.Folder(node=folder.position.node, flags=flags, globs=_bits(folder.position.globs))


def _pack_globs(automaton: Automaton) -> abi.Globs:
    row = abi.Globs(
        generation=automaton.generation,
        delegated=_bits(automaton.delegated),
        ends=_bits(automaton.ends),
    )
    row.stays[abi.ByteKind.CHARACTER] = _bits(automaton.stars)
    row.stays[abi.ByteKind.CONTINUED] = _bits(automaton.stars | automaton.wide)
    for byte, moves in enumerate(automaton.moves):
        row.moves[byte] = _bits(moves)
    for bit, class_id in automaton.class_ids.items():
        row.class_ids[bit] = class_id
    return row


def _bits(value: int) -> abi.Bits:
    words = [value >> 64 * index & _WORD for index in range(abi.GLOB_WORDS)]
    return abi.Bits(words=(ct.c_uint64 * abi.GLOB_WORDS)(*words))
