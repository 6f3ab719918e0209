"""Every way to obtain or carry a source address, tried for real; writes docs/bypass.md."""
