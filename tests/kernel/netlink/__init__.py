"""The netlink adapter against real interfaces; the witness is `ip`."""
