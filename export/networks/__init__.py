"""The networks, key-compatible with the public checkpoints."""
