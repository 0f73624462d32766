"""From a Snapshot to git and back: the only room that knows git."""
