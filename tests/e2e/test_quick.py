"""`make test-quick` needs no root: its tests run as nobody, in a copy of the files."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.whole_run import ROOT

#: Of its tests those that touch sockets, files and processes.
TESTS = ("tests/unit/control", "tests/unit/kernel", "tests/unit/cli/test_read.py")
NOBODY = pwd.getpwnam("nobody")


def test_the_quick_tests_pass_without_root() -> None:
    try:
        subprocess.run([sys.executable, "-c", ""], user="nobody", group=NOBODY.pw_gid, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"nobody can't run {sys.executable}")
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for each in ("odm_agent", "bpf", "tests", "docs", "pyproject.toml", "README.md"):
            source = ROOT / each
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / each, ignore=ignored, symlinks=True)
            else:
                shutil.copy(source, copy / each)
        for folder, _, files in os.walk(copy):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
            cwd=copy,
            env={"PATH": os.environ["PATH"], "HOME": name, "PYTHONPATH": name},
            user="nobody",
            group=NOBODY.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout
