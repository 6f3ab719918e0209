"""Whether what we keep in a folder is safe from others who could put something else there."""

import os
import stat
from pathlib import Path


def distrust(folder: Path) -> str | None:
    """Why others than root could take away or replace what is in `folder`; None: they cannot.

    Looks at the folder and those above it on its file system, as far as they exist, and where
    symbolic links lead. In a sticky folder (/tmp, /sys/fs/bpf) everybody may make things, but
    not change those of others.
    """
    return _distrust(folder.absolute()) or _distrust(folder.resolve())


def _distrust(folder: Path) -> str | None:
    trusted = {0, os.geteuid()}
    device = None
    for each in (folder, *folder.parents):
        try:
            found = each.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            if device not in (None, found.st_dev):
                return None
            device = found.st_dev
            if found.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                return f"everybody may write in {each}"
        if found.st_uid not in trusted:
            return f"{each} belongs to uid {found.st_uid}"
    return None
