"""Programs are compiled once for a kernel; afterwards what was kept is loaded, if it is whole."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.datapath import libbpf
from odm_agent.datapath.install import kept, pins
from odm_agent.datapath.install.compiled import Linked
from tests.kernel.survival.conftest import QUICK
from tests.lab.client import Kind, call
from tests.lab.world import World

_REPLACED = "odm_post_bind4"
#: r0 = 1; exit: it lets everything pass.
_SHORT = libbpf.instruction(0xB7, immediate=1) + libbpf.instruction(0x95)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[World]:
    """A world whose agent has compiled nothing yet, and is not running."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    settings = replace(QUICK, agent={"cache_dir": str(folder)})
    with World(tmp_path, settings, start=False) as made:
        yield made


def _folder(world: World) -> Path:
    return Path(world.agent.settings.agent["cache_dir"])


def _verified(world: World) -> int:
    """How many instructions of the program that is in force the verifier went through."""
    with libbpf.opened(libbpf.prog_by_id(pins.attached(world.agent.pins)[_REPLACED].prog_id)) as fd:
        return libbpf.prog_info(fd).verified


def _begin_anew(world: World) -> None:
    """With nothing in force, as after a reboot."""
    world.agent.stop()
    assert world.agent.call("detach", "-c", str(world.agent.config)).returncode == 0
    world.agent.start()


def test_what_was_compiled_is_loaded_the_next_time(empty: World) -> None:
    """Told by a program that nobody has compiled."""
    empty.agent.start()
    compiled = _verified(empty)
    (file,) = _folder(empty).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    made = kept.read(_folder(empty), file.stem)
    assert made is not None
    short = replace(made, programs={**made.programs, _REPLACED: Linked(_SHORT)})
    kept.write(_folder(empty), file.stem, short)
    _begin_anew(empty)
    assert _verified(empty) == 2 != compiled
    seen = empty.place("fixed").do(lambda: call(Kind.TCP6))
    assert seen.seen in empty.agent.addresses("fixed6")


def test_what_is_not_whole_is_compiled_anew(empty: World) -> None:
    empty.agent.start()
    compiled = _verified(empty)
    (file,) = _folder(empty).iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    _begin_anew(empty)
    assert _verified(empty) == compiled
    assert file.read_bytes() == whole, "and is kept again, just the same"


def test_where_nothing_can_be_kept_it_is_compiled_and_said(empty: World) -> None:
    _folder(empty).chmod(0o777)
    empty.agent.start()
    assert not os.listdir(_folder(empty))
    assert "compiled again at the next start" in empty.agent.log.read_text()
    seen = empty.place("fixed").do(lambda: call(Kind.TCP6))
    assert seen.seen in empty.agent.addresses("fixed6")
