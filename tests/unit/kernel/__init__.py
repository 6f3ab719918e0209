"""The parts of the kernel adapter that need no kernel."""
