"""What every request passes: hosts, origins, sizes, errors, and streams of events."""
