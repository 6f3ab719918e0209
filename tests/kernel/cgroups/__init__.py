"""Cgroups, sockets and namespaces as the kernel has them."""
