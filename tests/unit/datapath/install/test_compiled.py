"""Code whose references to maps are numbers, until there are descriptors."""

import pytest

from odm_agent.datapath import libbpf
from odm_agent.datapath.install.compiled import with_maps

_REST = libbpf.instruction(0)


def _map(number: int, to: int = 1) -> bytes:
    return libbpf.instruction(0x18, to=to, of=1, immediate=number) + _REST


def _constant(value: int) -> bytes:
    return libbpf.instruction(0x18, to=1, immediate=value) + _REST


def test_each_reference_is_replaced_and_nothing_else() -> None:
    move = libbpf.instruction(0xB7, to=0, immediate=3)
    code = _map(3) + _constant(3) + move + _map(4, to=7)
    assert with_maps(code, {3: 30, 4: 3}) == _map(30) + _constant(3) + move + _map(3, to=7)


def test_a_reference_to_no_known_map_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_maps(_map(3), {4: 4})
