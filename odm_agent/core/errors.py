"""The one root of all errors that a person is meant to read."""


class OdmError(Exception):
    """What was being done, what went wrong, what to do next: the CLI prints it as it stands."""


class ConfigError(OdmError):
    """A configuration that an enforcer must not run with; the message names file and line."""


class KernelError(OdmError):
    """The kernel refused something that the agent needs (netlink, cgroup, sysctl)."""


class DatapathError(OdmError):
    """The eBPF programs or maps could not be loaded, pinned, taken over or read."""


class ControlError(OdmError):
    """The running agent could not be reached, or refused what it was asked."""
