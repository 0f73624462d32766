"""Questions over images and their history: what differs, where bytes occur, what changed them, since when something holds."""

from vcsimg.history.blame import BytesChange, Captured, Captures, blame, first_where, range_history
from vcsimg.history.changes import (
    Change,
    PageChange,
    ProcessChange,
    RecordChange,
    RegionChange,
    RegistersChange,
    ThreadChange,
)
from vcsimg.history.diff import ChangedPieces, diff, diff_process
from vcsimg.history.search import search

__all__ = [
    "BytesChange",
    "Captured",
    "Captures",
    "Change",
    "ChangedPieces",
    "PageChange",
    "ProcessChange",
    "RecordChange",
    "RegionChange",
    "RegistersChange",
    "ThreadChange",
    "blame",
    "diff",
    "diff_process",
    "first_where",
    "range_history",
    "search",
]
