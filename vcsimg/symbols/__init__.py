"""What the bytes of an image mean: types, variables, stacks. Needs the optional package drgn."""

from vcsimg.symbols.program import program
from vcsimg.symbols.symbols import Frame, Stack, Symbols, Variable, variable

__all__ = ["Frame", "Stack", "Symbols", "Variable", "program", "variable"]
