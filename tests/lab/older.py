"""A kernel that is older than the one that runs, as far as it answers otherwise."""

from pathlib import Path

from tests.lab.compiled import library


def before_6_6() -> dict[str, str]:
    """The environment of an agent that finds no tcx links."""
    return {"LD_PRELOAD": str(library(Path(__file__).with_name("before_6_6.c")))}
