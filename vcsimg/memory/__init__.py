"""Fast access to another process's memory."""
