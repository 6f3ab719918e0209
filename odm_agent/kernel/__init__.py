"""Adapters to the kernel's own tables: addresses, routes, rules, cgroups, sockets."""
