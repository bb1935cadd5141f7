"""Papers whose experiments are not figures of learned schedulers: a file each."""
