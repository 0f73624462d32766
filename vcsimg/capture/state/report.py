"""What the modules of this package write into when a capture is put into words."""

from __future__ import annotations

from collections.abc import Mapping

from vcsimg.image.records import Record
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import FileContent, Section


class Report:
    """Sections of one process, filled in a fixed order, and contents of files that only the process still has.

    `known`: records of items that the capture before had: most are there again, and need not be put into words again."""

    def __init__(self, known: Mapping[Item, Record]) -> None:
        self._known = known
        self.records: dict[Item, Record] = {}
        """Those of this capture."""
        self._sections: dict[str, list[Record]] = {}
        self.contents: dict[str, FileContent] = {}
        self._content_of: dict[int, str] = {}

    def keep(self, fd: int, content: FileContent) -> None:
        """Keep the content of a descriptor's file."""
        self.contents[content.sha256] = content
        self._content_of[fd] = content.sha256

    def content_of(self, fd: int) -> str | None:
        """sha256 of the content of a descriptor's file, if it is kept."""
        return self._content_of.get(fd)

    def add(self, section: str, *items: Item) -> None:
        """Append records to a section."""
        self._sections.setdefault(section, []).extend(map(self._record, items))

    def _record(self, item: Item) -> Record:
        record = self.records[item] = self._known.get(item) or item.record()
        return record

    def put(self, section: str, records: Section) -> None:
        """Append records that are ready."""
        self._sections.setdefault(section, []).extend(records)

    def count(self, section: str) -> int:
        """The number of records in a section so far."""
        return len(self._sections.get(section, ()))

    def insert(self, section: str, place: int, item: Item) -> None:
        """Put a record before those that follow `place`."""
        self._sections.setdefault(section, []).insert(place, self._record(item))

    def unsaved(self, resource: str, reason: str) -> None:
        """Note something that the process has and the capture does not hold. Said twice, it is noted once."""
        record = self._record(Unsaved(resource, reason))
        if record not in self._sections.setdefault("unsaved", []):
            self.put("unsaved", (record,))

    def section(self, name: str) -> Section:
        """The records of a section so far."""
        return tuple(self._sections.get(name, ()))

    def sections(self) -> Mapping[str, Section]:
        """The sections that have records."""
        return {name: tuple(records) for name, records in self._sections.items() if records}
