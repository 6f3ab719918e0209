"""check without a file: everything that this host lacks, all at once, each with its remedy."""

from collections.abc import Callable, Iterable
from typing import Final

from odm_agent.cli.doctor import managers, network, programs, sockets, software, system
from odm_agent.cli.doctor.findings import Finding, Host, missing
from odm_agent.core.errors import OdmError

Check = Callable[[Host], Iterable[Finding]]

#: In the order in which a person would put things right.
CHECKS: Final[tuple[Check, ...]] = (
    system.privileges,
    software.interpreter,
    software.compiler,
    software.libbpf,
    system.bpf_syscall,
    system.cgroup_v2,
    system.bpf_filesystem,
    system.type_information,
    system.jit,
    system.ipv6,
    network.sock_diag,
    network.namespace_cookie,
    network.policy_routing,
    system.new_cgroups,
    software.load_test,
    sockets.socket_creation,
    programs.foreign_programs,
    network.foreign_rules,
    managers.networkd,
    managers.network_manager,
)


def examine(host: Host, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """All findings; a check that itself fails is one, too, and loses none of the others."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(host)
        except (OSError, OdmError) as error:
            name = check.__name__.replace("_", " ")
            remedy = "put right what the message says, and check again"
            found.append(missing(name, f"could not be checked: {error}", remedy))
    return found
