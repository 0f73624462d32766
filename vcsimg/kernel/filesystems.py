"""What kind of file system a mount is of, without asking the file system itself: mountinfo of proc(5)."""

from __future__ import annotations

import enum

_LOCAL = frozenset((
    "bcachefs", "btrfs", "ecryptfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660", "jfs", "msdos", "nilfs2", "ntfs",
    "ntfs3", "overlay", "ramfs", "reiserfs", "squashfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
))  # fmt: skip
_SERVED = frozenset(("9p", "afs", "ceph", "cifs", "fuse", "fuseblk", "nfs", "nfs4", "smb3", "vboxsf", "virtiofs"))


class Kind(enum.Enum):
    """LOCAL: files are read without waiting for anybody. SERVED: by a server, which may be slow, dead, or a process that is held. OTHER: what
    the kernel makes up when it is read (proc, sysfs, cgroup, mqueue, …), and what is not known."""

    LOCAL = "local"
    SERVED = "served"
    OTHER = "other"


def kinds(mountinfo: bytes) -> dict[int, Kind]:
    """The kind of each mount that a process has, by its id. Format of a line: `36 35 98:0 /root /mount options tags… - ext4 source options`."""
    found = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        name = after.split(b" ", 1)[0].decode("ascii", "replace")
        family = name.partition(".")[0]
        kind = Kind.LOCAL if name in _LOCAL else Kind.SERVED if family in _SERVED else Kind.OTHER
        found[int(before.split(b" ", 1)[0])] = kind
    return found
