"""What this machine allows: every check asks the machine, none guesses from a version."""

from vcsimg.doctor.checks import Check, Result, examine

__all__ = ["Check", "Result", "examine"]
