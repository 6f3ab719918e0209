"""The eBPF side: loading, pinning, adopting and reading the programs and maps of bpf/."""
