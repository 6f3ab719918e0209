"""Real network managers beside the agent, in namespaces, without systemd as PID 1."""
