"""Links of /proc that lead to a file which may have been deleted, renamed, or be out of our sight."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.kernel import statx

_DELETED = " (deleted)"


@dataclass(slots=True)
class Link:
    """A link of /proc, and struct statx of what it leads to (None: it cannot be followed)."""

    text: str
    raw: bytes | None
    proc: ProcDirectory

    @classmethod
    def read(cls, proc: ProcDirectory, name: str) -> Link:
        """The link as it is now; without text where it cannot be read."""
        try:
            return cls(proc.link(name), proc.statx_raw(name), proc)
        except OSError:
            return cls("", None, proc)

    def statx(self) -> statx.Statx | None:
        """What it leads to."""
        return statx.parse(self.raw) if self.raw is not None else None

    def resolve(self) -> tuple[str, bool]:
        """Its path, and whether the file was deleted."""
        where = self.statx()
        return resolve(self.text, where, f"/proc/{self.proc.pid}/root") if where else (self.text, False)


def resolve(text: str, where: statx.Statx, root: str) -> tuple[str, bool]:
    """The path that a link's text says, and whether it was deleted. The kernel appends " (deleted)", which may be part of a name too."""
    if not text.endswith(_DELETED):
        return text, False
    if where.links and _leads_to(root + text, where):
        return text, False
    return text.removesuffix(_DELETED), True


def _leads_to(path: str, where: statx.Statx) -> bool:
    try:
        found = statx.statx(path, follow=False)
    except OSError:
        return False
    return (found.device, found.inode) == (where.device, where.inode)
