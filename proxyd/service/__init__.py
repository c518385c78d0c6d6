"""The running service: configuration, the Resource tree, logs, its lifetime."""
