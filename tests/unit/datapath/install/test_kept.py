"""What was compiled is used again only if it is just that, whole, and nobody else's."""

import os
from pathlib import Path

import pytest

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.install import c_text, kept
from odm_agent.datapath.install.compiled import Compiled, Linked
from odm_agent.datapath.libbpf import MapInfo

MADE = Compiled(
    {"one": Linked(b"\x95" + bytes(7)), "two": Linked(bytes(8), b"types", b"functions")},
    (MapInfo(0, "rows", 2, 4, 8, 16, 0, 1, 2),),
    b"\x9f\xeb",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "odm-agent"


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    kept.write(folder, "name", MADE)
    assert kept.read(folder, "name") == MADE
    assert kept.read(folder, "another") is None
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_a_changed_octet_makes_it_worthless(folder: Path, at: int) -> None:
    kept.write(folder, "name", MADE)
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert kept.read(folder, "name") is None


@pytest.mark.parametrize("size", [0, 5, 32, 33, 100])
def test_so_does_its_end_that_is_missing(folder: Path, size: int) -> None:
    kept.write(folder, "name", MADE)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:size])
    assert kept.read(folder, "name") is None


def test_where_others_may_write_nothing_is_kept_or_believed(folder: Path) -> None:
    kept.write(folder, "name", MADE)
    folder.chmod(0o777)
    assert kept.read(folder, "name") is None
    with pytest.raises(DatapathError, match="everybody may write"):
        kept.write(folder, "name", MADE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_not_believed(folder: Path) -> None:
    kept.write(folder, "name", MADE)
    (file,) = folder.iterdir()
    os.chown(file, 65534, 65534)
    assert kept.read(folder, "name") is None


def test_the_oldest_files_go(folder: Path) -> None:
    for number in range(20):
        kept.write(folder, f"name{number}", MADE)
        for file in folder.iterdir():
            os.utime(file, ns=(1, file.stat().st_mtime_ns - 10**9))
        (folder / f"left{number}.compiled-new").touch()
    assert len([*folder.iterdir()]) <= 9
    assert kept.read(folder, "name19") == MADE
    assert kept.read(folder, "name0") is None


def test_where_no_folder_can_be_it_is_said_which(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatapathError, match="file/cache"):
        kept.write(tmp_path / "file" / "cache", "name", MADE)
    assert kept.read(tmp_path / "file" / "cache", "name") is None


def test_other_flags_have_another_key() -> None:
    assert kept.key(("-DA",)) == kept.key(("-DA",)) != kept.key(("-DB",))


@pytest.mark.parametrize("which", ["odm_choose.h", "include/another.h"])
def test_another_source_has_another_key(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {tmp_path / "odm_choose.h": "1", tmp_path / "include" / "another.h": "2"}
    for path, text in sources.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(c_text, "folder", lambda: tmp_path)
    before = kept.key(())
    (tmp_path / which).write_text("3")
    assert kept.key(()) != before


def test_another_compiler_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept.key(())
    monkeypatch.setattr(kept, "_compiler_version", lambda: "another")
    assert kept.key(()) != before
