"""The image model: pure data, no I/O. Imports errors only."""
