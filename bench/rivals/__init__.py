"""What people use today, measured beside us in an environment of its own (`make bench-peers`)."""
