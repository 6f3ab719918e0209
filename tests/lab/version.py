"""Another version of the program: a copy of this one with a few words changed."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def another_version(
    folder: Path,
    *,
    abi_tag: int | None = None,
    storage_tag: int | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Path:
    """A folder for PYTHONPATH. Its programs differ from ours at least in a comment.

    `renamed`: maps that have another name there, in C and Python alike.
    """
    for name in ("odm_agent", "bpf"):
        shutil.copytree(_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "bpf" / "odm.c").open("a") as source:
        source.write("/* of another version */\n")
    for tag, value in (("ABI_TAG", abi_tag), ("STORAGE_TAG", storage_tag)):
        if value is not None:
            _set(folder / "bpf" / "odm_abi.h", f"#define ODM_{tag} ", value)
            _set(folder / "odm_agent" / "datapath" / "abi.py", f"{tag}: Final = ", value)
    for path in (*folder.glob("bpf/*.[ch]"), *folder.glob("odm_agent/datapath/**/*.py")):
        text = path.read_text()
        for old, new in (renamed or {}).items():
            text = (
                text.replace(f'"{old}"', f'"{new}"') if path.suffix == ".py" else _c(text, old, new)
            )
        path.write_text(text)
    return folder


def _c(text: str, old: str, new: str) -> str:
    """Only the map: not, say, `struct odm_settings`."""
    return re.sub(rf"(?<!struct) {old},|\b{old}\.", lambda found: found[0].replace(old, new), text)


def _set(path: Path, start: str, value: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    found = [number for number, line in enumerate(lines) if line.startswith(start)]
    assert len(found) == 1, f"{path}: {start!r}"
    lines[found[0]] = f"{start}{value}\n"
    path.write_text("".join(lines))
