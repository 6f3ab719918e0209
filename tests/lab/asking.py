"""A world in which a scripted network gives all prefixes but the fixed ones, on request."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from odm_agent.control.client import ControlClient
from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.host import FIXED, NONPERSISTENT, PREFIXES, SESSION, LabPrefix, prefix_of
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

#: Types that stand in the configuration; the others are the network's.
_CONFIGURED: Final = (FIXED,)
CLASSES: Final = {
    "asking": LabClass(allow=(FIXED, SESSION, NONPERSISTENT)),
    "default": LabClass(allow=(SESSION,), default=SESSION, on_failure="closed"),
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
    "capped": LabClass(
        allow=(SESSION,), default=SESSION, caps={SESSION: {"requests_per_minute": 1}}
    ),
    "audited": LabClass(allow=(FIXED,), default=FIXED, mode="audit"),
}


class AskingWorld(World):
    """The world, with `script` for what the network answers, and `told` for what it was told."""

    def __init__(self, folder: Path, settings: Settings | None = None, **variables: str) -> None:
        made = settings or replace(STANDARD, classes=CLASSES)
        made = replace(made, prefixes=[each for each in PREFIXES if each.type in _CONFIGURED])
        super().__init__(folder, made, start=False)
        self.file = folder / "script.json"
        self.agent.entry = ("tests.lab.scripted",)
        self.agent.variables = {"ODM_SCRIPT": str(self.file), **variables}
        self.script()
        try:
            self.agent.start()
        except BaseException:
            self.close()
            raise

    def script(self, *entries: tuple[AddressType, Family, dict[str, Any]]) -> None:
        """This is what the network answers from now on."""
        text = json.dumps({f"{type.word}/{family}": reply for type, family, reply in entries})
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def withdraw(self) -> None:
        """The network takes back all that it gave, and nothing is left of it."""
        flag = self.file.with_suffix(".withdrawn")
        flag.touch()
        try:
            wait_until(self._is_alone, "that what was given is gone", 30)
        finally:
            flag.unlink()
        self.told()

    def _is_alone(self) -> bool:
        with ControlClient(self.agent.socket) as client:
            return {each["name"] for each in client.call("prefixes")} == {
                each.name for each in self.agent.settings.prefixes
            }

    def told(self) -> list[str]:
        """What the network's side was told since this was asked last."""
        file = self.file.with_suffix(".told")
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


def granted(type: AddressType, family: Family, **keys: Any) -> tuple[AddressType, Family, Any]:
    """The network gives the site's prefix of a type."""
    prefix: LabPrefix = prefix_of(type, family)
    reply = {
        "network": str(prefix.network),
        "interface": prefix.interface,
        "gateway": str(prefix.gateway),
        **keys,
    }
    return type, family, reply


def refused(
    type: AddressType, family: Family, cause: str, kind: str = "refused", **keys: Any
) -> tuple[AddressType, Family, Any]:
    """The network gives none."""
    return type, family, {"cause": cause, "kind": kind, **keys}
