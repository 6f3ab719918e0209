"""`make soak`: thousands of sockets while the agent is killed, restarted and reloaded all the time.

Not part of `make test`, but for a short run of it (tests/e2e/test_soak.py). Three witnesses: the
correspondent, which knows what each caller's source should be; the callers, which want an answer
to whatever they may send; and the counts, which are held against the kernel's own lists.
"""
