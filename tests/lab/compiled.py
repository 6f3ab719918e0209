"""What tests need in C, compiled when it is first asked for."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def library(source: Path) -> Path:
    """The shared library made of one file; it is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="odm-test-library-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    made = folder / f"{source.stem}.so"
    subprocess.run(
        ["gcc", "-Wall", "-Werror", "-O2", "-shared", "-fPIC", "-o", made, source], check=True
    )
    return made
