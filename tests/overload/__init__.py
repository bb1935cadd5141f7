"""More than a machine can do: it is said, everything is accounted for, and memory stays bounded."""
