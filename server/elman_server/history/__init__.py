"""History: fork, rewind, replay and snapshots of sessions."""
