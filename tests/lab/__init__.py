"""A laboratory of real kernel objects: network namespaces, cgroups, peers, captures, agents.

All that is made here is named after this process and removed by `close()` (context managers).
"""
