"""Sections `auxv`, `cmdline`, `environ` and `limits`."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item, Limit
from vcsimg.image.sections.names import AuxvKey


@dataclass(frozen=True, slots=True)
class AuxvEntry(Item, kind="entry"):
    """An entry of the auxiliary vector, in order, without the final AT_NULL: getauxval(3)."""

    key: AuxvKey
    value: Hex


@dataclass(frozen=True, slots=True)
class Argument(Item, kind="argument"):
    """An argument of the command line, as /proc/PID/cmdline shows it."""

    value: str


@dataclass(frozen=True, slots=True)
class Variable(Item, kind="variable"):
    """A string of the first environment, as it stands in memory between env_start and env_end."""

    value: str


@dataclass(frozen=True, slots=True)
class ResourceLimit(Item, kind="limit"):
    """getrlimit(2): `resource` is the constant's name without RLIMIT_, lower case."""

    resource: str
    soft: Limit
    hard: Limit
