"""Questions over many captures."""
