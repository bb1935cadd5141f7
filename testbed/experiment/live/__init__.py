"""Learning where it runs: run, learn from the log, deploy, test, keep or roll back."""
