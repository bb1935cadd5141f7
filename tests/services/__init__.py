"""Real services for tests, each on loopback with data of its own, started and stopped again."""
