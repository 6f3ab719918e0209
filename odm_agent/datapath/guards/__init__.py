"""What packet and XDP sockets, which no cgroup program sees, are kept out by."""
