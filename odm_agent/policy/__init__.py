"""Application classes: what the configuration says, as rows and as cgroup patterns (pure)."""
