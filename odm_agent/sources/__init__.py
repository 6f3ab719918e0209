"""Where typed prefixes come from."""
