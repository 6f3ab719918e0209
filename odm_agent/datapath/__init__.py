"""The eBPF side: loading, pinning, taking over and reading the programs and maps of bpf/."""
