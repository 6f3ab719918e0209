"""Prefixes delegated by DHCPv6 (RFC 8415, RFC 9915), with their types, without sockets or clock."""
