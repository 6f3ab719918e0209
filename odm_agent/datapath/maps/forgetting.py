"""Makes maps forget what they say about a number, before it stands for another name."""

from collections.abc import Mapping

from odm_agent.core.model import AddressType
from odm_agent.datapath import abi, libbpf


def forget_class(maps: Mapping[str, libbpf.Map], class_id: int) -> None:
    """Drop the class's verdict counts, what it sent, and what its UDP servers were asked.

    Raises DatapathError. For a class that no row, cgroup or socket is of: hooks note nothing more
    of it.
    """
    _drop(maps["odm_verdicts"], class_id)
    turn = maps["odm_dialogue_turns"].get(class_id)
    if turn is not None and turn.next:
        _drop(maps["odm_dialogues"], class_id)
        maps["odm_dialogue_turns"].put(class_id, abi.DialogueTurn(), locked=True)
    maps["odm_members"].put(class_id, 0)
    for type_ in AddressType:
        maps["odm_traffic"].delete(abi.usage_index(class_id, type_))


def forget_prefix(maps: Mapping[str, libbpf.Map], prefix_id: int) -> None:
    """Clear the row that says where packets from the prefix's addresses leave."""
    maps["odm_offers"].put(prefix_id, abi.Prefix())


def _drop(rows: libbpf.Map, class_id: int) -> None:
    for key, _ in list(rows.items()):
        if key.class_id == class_id:
            rows.delete(key)
