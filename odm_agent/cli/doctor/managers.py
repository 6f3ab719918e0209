"""Network managers that tidy up what they did not make themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odm_agent.cli.doctor.findings import Finding, Host, ok, warning

#: networkd.conf(5): both default to yes, and then networkd removes rules and routes of others.
SETTINGS: Final = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes")
#: systemd.syntax(7): what counts as false.
FALSE_WORDS: Final = frozenset({"no", "false", "off", "0", "n", "f"})
#: Later folders win.
FOLDERS: Final = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
ADVICE: Final = "[Network] in /etc/systemd/networkd.conf.d/odm-agent.conf"


def networkd(host: Host) -> Iterator[Finding]:
    """systemd-networkd's setting for rules and routes of others."""
    if not in_use(host.root, "systemd-networkd.service", "systemd-network"):
        yield ok("systemd-networkd", "not in use")
        return
    settings = networkd_settings(host.root)
    kept = [name for name in SETTINGS if settings.get(name, "yes").lower() in FALSE_WORDS]
    removes = [name for name in SETTINGS if name not in kept]
    if not removes:
        yield ok("systemd-networkd", "leaves rules and routes of others alone")
        return
    wanted = " and ".join(f"{name}=no" for name in removes)
    remedy = f"set {wanted} under {ADVICE}, then restart it"
    yield warning("systemd-networkd", "removes rules or routes that it did not make", remedy)


def networkd_settings(root: Path) -> dict[str, str]:
    """The `[Network]` settings of networkd.conf and its drop-ins, as systemd would read them."""
    mains = [root / folder / "networkd.conf" for folder in FOLDERS]
    # Only the main file of the highest rank counts; drop-ins of all folders do, sorted by name,
    # and one that is there twice counts in its highest folder.
    files = [main for main in mains if main.is_file()][-1:]
    drop_ins: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (root / folder / "networkd.conf.d").glob("*.conf"):
            drop_ins[path.name] = path
    files += [drop_ins[name] for name in sorted(drop_ins)]
    settings: dict[str, str] = {}
    for path in files:
        settings |= _section(path.read_text(errors="replace"), "Network")
    return settings


def _section(text: str, wanted: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == wanted and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            settings[key.strip()] = value.strip()
    return settings


def network_manager(host: Host) -> Iterator[Finding]:
    """NetworkManager, which flushes an interface when it takes it down."""
    if in_use(host.root, "NetworkManager.service", "NetworkManager"):
        detail = "flushes addresses and routes of an interface that it takes down"
        remedy = "nothing, if links seldom go: the agent puts things right within moments; else "
        remedy += "set unmanaged-devices under [keyfile] for the interfaces of typed prefixes, or"
        remedy += " let what it puts there serve a type ([uplinks], which need nothing of it)"
        yield warning("NetworkManager", detail, remedy)
    else:
        yield ok("NetworkManager", "not in use")


def in_use(root: Path, unit: str, process: str) -> bool:
    """Whether the service is enabled or runs; `process` is its name, at most 15 characters."""
    if any((root / "etc/systemd/system").glob(f"*.wants/{unit}")):
        return True
    for name in (root / "proc").glob("[0-9]*/comm"):
        try:
            if name.read_bytes().strip() == process.encode():
                return True
        except OSError:
            # The process has ended since.
            continue
    return False
