"""Tests whose witness is the kernel: namespaces, cgroups, sockets."""
