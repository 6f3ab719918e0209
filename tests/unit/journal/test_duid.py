"""A host is the same to its networks for ever, and never quietly another one."""

from pathlib import Path

import pytest

from odm_agent.journal.duid import host_duid
from odm_agent.journal.errors import JournalError

NUMBER = "0123456789abcdef0123456789abcdef\n"


@pytest.fixture
def machine_id(tmp_path: Path) -> Path:
    path = tmp_path / "machine-id"
    path.write_text(NUMBER)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


def test_it_is_a_uuid_and_stays_whatever_becomes_of_the_machines_number(
    folder: Path, machine_id: Path
) -> None:
    made = host_duid(folder, machine_id)
    assert made[:2] == b"\0\x04" and len(made) == 18
    assert made[8] >> 4 == 8 and made[10] >> 6 == 2  # version and variant
    machine_id.write_text(NUMBER.replace("0", "f"))
    assert host_duid(folder, machine_id) == made
    assert (folder / "duid").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["duid"]


def test_lost_with_its_folder_it_is_made_the_same(folder: Path, machine_id: Path) -> None:
    made = host_duid(folder, machine_id)
    (folder / "duid").unlink()
    assert host_duid(folder, machine_id) == made


def test_it_does_not_tell_the_machines_number(folder: Path, machine_id: Path) -> None:
    assert bytes.fromhex(NUMBER) not in host_duid(folder, machine_id)


def test_agents_with_other_folders_are_other_hosts(tmp_path: Path, machine_id: Path) -> None:
    made = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.add(host_duid(tmp_path / name, machine_id))
    assert len(made) == 2


@pytest.mark.parametrize("text", ["", "uninitialized\n", None])
def test_without_a_machines_number_it_is_random_and_kept(
    folder: Path, machine_id: Path, text: str | None
) -> None:
    machine_id.unlink()
    if text is not None:
        machine_id.write_text(text)
    made = host_duid(folder, machine_id)
    assert host_duid(folder, machine_id) == made
    (folder / "duid").unlink()
    assert host_duid(folder, machine_id) != made


@pytest.mark.parametrize("damage", [b"", b"0004", b"\xff" * 37, b"0001" + b"0" * 32 + b"\n"])
def test_one_that_is_damaged_is_told_of_and_left(
    folder: Path, machine_id: Path, damage: bytes
) -> None:
    path = folder / "duid"
    path.write_bytes(damage)
    with pytest.raises(JournalError, match=r"no DHCP identifier .* restore it from a backup, or"):
        host_duid(folder, machine_id)
    assert path.read_bytes() == damage


def test_what_can_not_be_kept_is_not_used(folder: Path, machine_id: Path) -> None:
    (folder / "duid.new").mkdir()
    with pytest.raises(JournalError, match="can't be kept"):
        host_duid(folder, machine_id)
    assert not (folder / "duid").exists()
