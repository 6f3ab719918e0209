"""odm-agent: On-Demand Mobility Management (RFC 8653) on a stock Linux kernel."""

__version__ = "0.1.0"
