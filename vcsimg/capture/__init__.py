"""From a live process to a Snapshot."""
