"""The page about a testbed that is up: its network, its run, and what one can do to them."""
