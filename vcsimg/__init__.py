"""The history of running processes, kept in git."""

__version__ = "0.1.0"
