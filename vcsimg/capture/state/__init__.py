"""Everything that a capture holds besides memory: one module a resource. What the records say: docs/sections.md."""

from __future__ import annotations

from vcsimg.capture.state.family import TreeState
from vcsimg.capture.state.host import host_records
from vcsimg.capture.state.reader import State, StateReader

__all__ = ["State", "StateReader", "TreeState", "host_records"]
