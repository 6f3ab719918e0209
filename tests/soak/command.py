"""What the soaks have in common: what they are told, and how they say what went wrong."""

import argparse
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests import residue
from tests.lab import run

N = TypeVar("N", int, float)


def soaked(
    name: str,
    doc: str | None,
    option: str,
    default: N,
    told: Callable[[N], str],
    soak: Callable[[Path, N, random.Random], list[str]],
) -> int:
    """Run a soak as the command line says, and print what was seen; the exit code.

    It is given a folder of its own, for how long or how often, and chance, and returns violations.
    """
    parser = argparse.ArgumentParser(prog=name, description=doc)
    parser.add_argument(option, dest="amount", type=type(default), default=default)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    os.environ[run.MARK] = str(os.getpid())
    print(f"{name}: {told(options.amount)}, seed {options.seed}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="odm-soak-") as folder:
            violations = soak(Path(folder), options.amount, random.Random(options.seed))
    except KeyboardInterrupt:
        print(f"{name}: interrupted; everything is removed")
        return 130
    violations += residue.left_behind()
    for each in violations[:40]:
        print(f"VIOLATION {each}")
    print(f"{name}: {len(violations)} violations")
    return 1 if violations else 0
