"""From a Snapshot to files that other tools read."""
