"""Section `contents`: files at their paths, of which the image holds the content, or says why it does not."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Item, Octal


@dataclass(frozen=True, slots=True)
class Content(Item, kind="content"):
    """A regular file that the process has open, or maps to write to it; once, however many descriptors lead to it.

    `written`: some process of the capture can write to it; `sha256`: of its content, which is in files/ of the commit; `in_memory`: all of
    it is mapped to be written, so that its content is that of these regions; `reason`: why the content is in neither.
    """

    device: str
    inode: int
    path: str
    size: int
    mtime: int
    mode: Octal
    uid: int
    gid: int
    links: int
    written: bool
    in_memory: bool
    sha256: str | None
    reason: str | None
