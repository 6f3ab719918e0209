"""The real agent, run on a site: `python -m odm_agent run` with everything of its own."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from odm_agent.control.client import ControlClient
from odm_agent.core.model import AddressType
from odm_agent.datapath.guards import packet_sockets
from tests.lab import run
from tests.lab.cgroup import Cgroup
from tests.lab.host import LabPrefix
from tests.lab.netns import NetNs, checked

METRICS: Final = "127.0.0.1:9653"
_START_TIMEOUT_S: Final = 120.0
#: Compiled programs, kept for all runs: to compile takes longer than most tests.
COMPILED: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odm-agent" / "programs"
)
_numbers: Final = itertools.count(1)

#: A label of a metric, and its value; those that people or managers name may be anything.
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_NAMED: Final = frozenset({"class", "prefix"})


@dataclass(frozen=True)
class LabClass:
    """An application class as configured; its cgroup is called as the class unless told."""

    allow: tuple[AddressType, ...] = ()
    default: AddressType | None = None
    mode: str = "enforce"
    strict: bool = False
    on_failure: str | None = None
    cgroups: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    delegated: bool = False
    #: type -> the keys of its cap, e.g. {FIXED: {"sockets": 3}}.
    caps: Mapping[AddressType, Mapping[str, int]] = field(default_factory=dict)
    #: type -> the keys of its lifetime, e.g. {SESSION: {"preferred": "5s"}}.
    lifetimes: Mapping[AddressType, Mapping[str, str]] = field(default_factory=dict)
    on_handover: str | None = None
    mptcp: str | None = None


@dataclass
class Settings:
    """What a test writes into the agent's configuration."""

    prefixes: Sequence[LabPrefix] = ()
    classes: Mapping[str, LabClass] = field(default_factory=dict)
    unclassified: str = "enforce"
    agent: Mapping[str, Any] = field(default_factory=dict)
    #: Delegations and their keys, e.g. {"isp": {"interface": "w0"}}; sections among these, too.
    delegations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Keys added to single prefixes, e.g. {"fixed6": {"preference": 5}}.
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: The keys of uplinks, by name.
    uplinks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: The keys of prefixes that are not of the standard laboratory, by name.
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def toml(settings: Settings, agent: Mapping[str, Any]) -> str:
    """The text of a configuration file. JSON's strings, numbers, lists are TOML's too."""
    lines = ["[agent]", *_keys({**agent, **settings.agent})]
    lines += ["[unclassified]", *_keys({"mode": settings.unclassified})]
    for name, each in settings.classes.items():
        keys: dict[str, Any] = {
            "cgroups": list(each.cgroups or (name,)),
            "allow": [type.word for type in each.allow],
            "mode": each.mode,
            "strict": each.strict,
        }
        if each.default:
            keys["default"] = each.default.word
        if each.on_failure:
            keys["on_failure"] = each.on_failure
        if each.on_handover:
            keys["on_handover"] = each.on_handover
        if each.mptcp:
            keys["mptcp"] = each.mptcp
        if each.delegated:
            keys["delegated"] = True
        if each.refuse:
            keys["refuse"] = list(each.refuse)
        lines += [f"[classes.{name}]", *_keys(keys)]
        for type, cap in each.caps.items():
            lines += [f"[classes.{name}.caps.{type.word}]", *_keys(cap)]
        for type, lifetime in each.lifetimes.items():
            lines += [f"[classes.{name}.lifetimes.{type.word}]", *_keys(lifetime)]
    for prefix in settings.prefixes:
        keys = {
            "type": prefix.type.word,
            "prefix": str(prefix.network),
            "interface": prefix.interface,
            "gateway": str(prefix.gateway),
            "placement": prefix.placement.value,
            "pool": prefix.pool,
        }
        if prefix.range:
            keys["range"] = "-".join(str(each) for each in prefix.range)
        lines += [
            f"[prefixes.{prefix.name}]",
            *_keys({**keys, **settings.extra.get(prefix.name, {})}),
        ]
    for name, other in settings.others.items():
        lines += [f"[prefixes.{name}]", *_keys(other)]
    for name, uplink in settings.uplinks.items():
        lines += [f"[uplinks.{name}]", *_keys(uplink)]
    for name, section in settings.delegations.items():
        terms = section.get("terms", {})
        keys = {key: value for key, value in section.items() if key != "terms"}
        lines += [f"[delegations.{name}]", *_keys(keys)]
        for word, those in terms.items():
            lines += [f"[delegations.{name}.terms.{word}]", *_keys(those)]
    return "\n".join(lines) + "\n"


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


class Agent:
    """One agent in a namespace, attached to a cgroup; made stopped. `close()` detaches."""

    def __init__(self, netns: NetNs, cgroup: Cgroup, folder: Path, settings: Settings) -> None:
        number = next(_numbers)
        self.netns = netns
        self.cgroup = cgroup
        self.settings = settings
        self.folder = folder / f"agent-{number}"
        self.folder.mkdir()
        self.pins = Path("/sys/fs/bpf") / run.name(run.PINS, number)
        self.config = self.folder / "odm-agent.toml"
        self.log = self.folder / "log"
        self.socket = self.folder / "run" / "control.sock"
        self.wait_socket = self.folder / "wait" / "wait.sock"
        #: A command that runs the agent in turn, e.g. `unshare ... --`; it must exec.
        self.within: Sequence[str] = ()
        #: A folder with another version of the program (`tests.lab.version`); None: this one.
        self.version: Path | None = None
        #: Environment variables of its own.
        self.variables: Mapping[str, str] = {}
        #: The module that is run, with `python -m`.
        self.entry: Sequence[str] = ("odm_agent",)
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(settings)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if error is not None and self.log.exists():
            sys.stderr.write(f"--- the agent's log\n{self.log.read_text()}")
        self.close()

    def configure(self, settings: Settings) -> None:
        """Write the configuration file (a running agent reads it at `reload`)."""
        self.settings = settings
        self.config.write_text(
            toml(
                settings,
                {
                    "cache_dir": str(COMPILED),
                    "state_dir": str(self.folder / "state"),
                    "socket": str(self.socket),
                    "wait_socket": str(self.wait_socket),
                    "pin_dir": str(self.pins),
                    "cgroup": str(self.cgroup.path),
                    "metrics": METRICS,
                    "log_level": "debug",
                },
            )
        )

    def start(self) -> None:
        """Start it and wait until it says that it is ready (sd_notify)."""
        path = self.folder / "notify"
        path.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self.log.open("ab") as log,
        ):
            notify.bind(str(path))
            notify.settimeout(0.1)
            self._launch(log, NOTIFY_SOCKET=str(path))
            assert self._process is not None
            for _ in range(int(_START_TIMEOUT_S / 0.1)):
                try:
                    if b"READY=1" in notify.recv(4096):
                        return
                except TimeoutError:
                    if self._process.poll() is not None:
                        break
        code = self._process.poll()
        raise AssertionError(f"the agent did not get ready (exit {code}):\n{self.log.read_text()}")

    def launch(self) -> None:
        """Start it, and don't wait for it."""
        with self.log.open("ab") as log:
            self._launch(log)

    def _launch(self, log: IO[bytes], **variables: str) -> None:
        if self._process is not None:
            self._process.wait(15)  # somebody else may have ended the one before
        self._process = subprocess.Popen(
            self._command("run", "-c", str(self.config)),
            stdout=log,
            stderr=log,
            env={**self._environment(), **variables},
            cwd=self.version,
            start_new_session=True,  # Ctrl-C is ours to handle, not its
        )

    def stop(self) -> None:
        """End it in the orderly way; what is pinned keeps enforcing."""
        self._end(signal.SIGTERM)

    def sigkill(self) -> None:
        """Kill it."""
        self._end(signal.SIGKILL)

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`odm-agent ARGUMENTS` where the agent runs; the exit code is the caller's to judge."""
        return subprocess.run(
            self._command(*arguments),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._environment(),
            cwd=self.version,
        )

    def _environment(self) -> dict[str, str]:
        version = {"PYTHONPATH": str(self.version)} if self.version else {}
        return {**os.environ, **version, **self.variables}

    def reload(self) -> "subprocess.CompletedProcess[str]":
        """`odm-agent reload`; the exit code is the caller's to judge."""
        return subprocess.run(
            self._command("reload", "--socket", str(self.socket)),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def read(self, noun: str, *arguments: str) -> Any:
        """The JSON of a read command, e.g. `read("addresses")`."""
        return json.loads(
            checked(self._command(noun, "--json", "--socket", str(self.socket), *arguments))
        )

    def metrics(self) -> str:
        """One scrape of the metrics endpoint, whose labels are words that a query can have."""

        def scrape() -> str:
            with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=5) as answer:
                return str(answer.read(), "utf-8")

        text = self.netns.call(scrape)
        odd = [each for each in _LABEL.findall(text) if each[0] not in _NAMED and " " in each[1]]
        assert not odd, f"labels are words with hyphens: {odd}"
        return text

    def addresses(self, name: str) -> list[str]:
        """The addresses of a prefix that are ready, as the agent tells it.

        By the control socket itself: tests ask so often that the command's start would count.
        """
        with ControlClient(self.socket) as client:
            return [
                each["address"]
                for each in client.call("addresses")
                if each["prefix"] == name and each["state"] == "ready"
            ]

    def guarded(self) -> frozenset[int]:
        """The interfaces (by index) that are guarded against packet sockets."""
        return self.netns.call(packet_sockets.guarded, self.pins)

    def close(self) -> None:
        """Stop and detach: nothing of it is left in the kernel."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        if self.pins.exists():
            checked(self._command("detach", "-c", str(self.config)))

    def program(self, *arguments: str) -> list[str]:
        """The command line of `odm-agent ARGUMENTS`, for where it is run."""
        return [sys.executable, "-m", *self.entry, *arguments]

    @property
    def ended(self) -> bool:
        """Whether it does not run (any more)."""
        return self._process is None or self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _command(self, *arguments: str) -> list[str]:
        return self.netns.command([*self.within, *self.program(*arguments)])

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the agent ignored {number.name}") from None
