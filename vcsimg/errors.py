"""Everything that vcsimg raises on purpose.

    VcsimgError
    ├── ProcessError                a live process cannot be used: carries pid
    │   ├── NoSuchProcess
    │   ├── NotPermitted            other user, ptrace_scope, container: carries reason
    │   ├── AlreadyTraced           carries the tracer's pid
    │   ├── UnsupportedProcess      kernel thread, zombie, 32-bit: carries reason
    │   ├── ProcessChanged          it ended, or called exec, while it was being used
    │   ├── StopTimeout             a thread did not stop (uninterruptible sleep, vfork)
    │   └── BorrowError             a borrowed system call is impossible (seccomp, no code) or failed
    ├── AccessError                 memory cannot be read or written: carries pid, address, length, done
    ├── ImageError                  a stored image cannot be used
    │   ├── DamagedImage            carries where: capture, process, region, page
    │   ├── NewerFormat             written by a later vcsimg
    │   └── HostileImage            well-formed as git objects, but not an image that vcsimg would write
    ├── StoreError                  a repository cannot be used: carries path
    │   ├── RepositoryMissing
    │   ├── RepositoryReadOnly
    │   ├── RepositoryBusy          another vcsimg writes the same branch: carries the owner's pid
    │   ├── DiskFull
    │   ├── KeyMissing              the content is encrypted, and the key is not here
    │   └── UnknownRevision
    ├── CommandNotStarted           a program to record cannot be started: carries command, errno
    ├── MissingPackage              an optional Python package is not installed: carries package
    ├── SymbolError                 a variable, type or stack cannot be found: carries expression
    ├── ExportError                 a file to export to cannot be written: carries path
    ├── RestoreError                a capture cannot be run again: carries resource, reason, option
    └── UnsupportedKernel           this kernel lacks a facility: carries facility

Errors carry facts as attributes. `remedy` says in one sentence what the user can do; the command line prints it below.
"""

from __future__ import annotations

import errno as _errno
import os


class VcsimgError(Exception):
    """Base of every error raised on purpose. `str(error)` is one sentence for the user."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class ProcessError(VcsimgError):
    """A live process cannot be used."""

    def __init__(self, pid: int, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"process {pid}: {message}", remedy=remedy)
        self.pid = pid


class NoSuchProcess(ProcessError):
    def __init__(self, pid: int) -> None:
        super().__init__(pid, "no such process", remedy="Look for the pid with ps or pgrep.")


class NotPermitted(ProcessError):
    def __init__(self, pid: int, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(pid, f"not permitted: {reason}", remedy=remedy)
        self.reason = reason


class AlreadyTraced(ProcessError):
    def __init__(self, pid: int, tracer: int) -> None:
        super().__init__(
            pid,
            f"already traced by process {tracer}",
            remedy=f"Detach the debugger or strace that is process {tracer}, then try again.",
        )
        self.tracer = tracer


class UnsupportedProcess(ProcessError):
    def __init__(self, pid: int, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(pid, reason, remedy=remedy)
        self.reason = reason


class ProcessChanged(ProcessError):
    """It ended, or called exec, while it was being used."""


class StopTimeout(ProcessError):
    def __init__(self, pid: int, tid: int, seconds: float, state: str) -> None:
        super().__init__(
            pid,
            f"thread {tid} did not stop within {seconds:g} s ({state})",
            remedy="It waits inside the kernel (disk, network file system, vfork). Try again when it has moved on.",
        )
        self.tid = tid
        self.seconds = seconds
        self.state = state


class BorrowError(ProcessError):
    def __init__(self, pid: int, message: str, *, errno: int | None = None, remedy: str | None = None) -> None:
        super().__init__(pid, message, remedy=remedy)
        self.errno = errno


class AccessError(VcsimgError):
    """Memory cannot be read or written. `done` bytes, from `address` on, were transferred before the failure.

    When several ranges were asked for in one call, `address` and `length` are those of the range that failed, and `earlier` bytes of
    the ranges before it were transferred too.
    """

    def __init__(
        self, pid: int | None, address: int, length: int, done: int, errno: int = _errno.EFAULT, *, earlier: int = 0
    ) -> None:
        where = f"process {pid}: " if pid is not None else ""
        super().__init__(f"{where}cannot access {length} bytes at {address:#x}: {os.strerror(errno)} after {done} bytes")
        self.pid = pid
        self.address = address
        self.length = length
        self.done = done
        self.errno = errno
        self.earlier = earlier


class ImageError(VcsimgError):
    """A stored image cannot be used."""


class DamagedImage(ImageError):
    """Stored bytes are not what was captured. `where` names capture, process, region, page as far as known."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"{where}: {reason}", remedy="Run `vcsimg fsck` to see what else is damaged, and fetch the objects from a copy."
        )
        self.where = where
        self.reason = reason


class NewerFormat(ImageError):
    def __init__(self, where: str, number: int, known: int) -> None:
        super().__init__(
            f"{where}: image format {number}, and this vcsimg knows formats up to {known}", remedy="Install a newer vcsimg."
        )
        self.number = number


class HostileImage(ImageError):
    """Well-formed git objects that no vcsimg would write."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}", remedy="Do not trust this image: it was not written by vcsimg.")
        self.where = where
        self.reason = reason


class StoreError(VcsimgError):
    """A repository cannot be used."""

    def __init__(self, path: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{path}: {message}", remedy=remedy)
        self.path = path


class RepositoryMissing(StoreError):
    def __init__(self, path: str) -> None:
        super().__init__(
            path, "no vcsimg repository here", remedy="Make one with `vcsimg init`, or name one with --repo or VCSIMG_REPO."
        )


class RepositoryReadOnly(StoreError):
    def __init__(self, path: str) -> None:
        super().__init__(path, "the repository cannot be written", remedy="Check its owner and permissions, or use --repo.")


class RepositoryBusy(StoreError):
    def __init__(self, path: str, branch: str, owner: int | None) -> None:
        who = f"process {owner}" if owner else "another process"
        super().__init__(
            path,
            f"{who} is already writing branch {branch}",
            remedy="For one more capture of a process that is being recorded, use `vcsimg snap`; for all else, end the recorder first.",
        )
        self.branch = branch
        self.owner = owner


NO_ROOM = {
    _errno.ENOSPC: ("no space left on the device", "Make room"),
    _errno.EDQUOT: ("the disk quota is used up", "Make room"),
    _errno.EFBIG: ("a file must not become as large as it would", "Raise the limit of the shell (ulimit -f)"),
}
"""By errno, why something cannot be written, and what can be done."""


class DiskFull(StoreError):
    """`number`: one of NO_ROOM."""

    def __init__(self, path: str, number: int = _errno.ENOSPC) -> None:
        reason, remedy = NO_ROOM[number]
        super().__init__(path, reason, remedy=f"{remedy}; what was committed before is whole, and recording can go on.")


class KeyMissing(StoreError):
    """What is stored is encrypted, and the key is not here."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(
            path,
            f"{message}, and the key is not here",
            remedy="Name the file that has it with VCSIMG_KEY_FILE or git config vcsimg.keyFile, or a command that prints it with vcsimg.keyCommand.",
        )


class UnknownRevision(StoreError):
    def __init__(self, path: str, revision: str) -> None:
        super().__init__(path, f"unknown revision {revision!r}", remedy="`vcsimg log --all` lists what there is.")
        self.revision = revision


class MissingPackage(VcsimgError):
    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the Python package {package}", remedy=f"Install it with: pip install 'vcsimg[{extra}]'")
        self.package = package


class SymbolError(VcsimgError):
    """A variable, type or stack cannot be found."""

    def __init__(self, expression: str, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{expression}: {reason}", remedy=remedy)
        self.expression = expression
        self.reason = reason


class ExportError(VcsimgError):
    """A file to export to cannot be written."""

    def __init__(self, path: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{path}: {message}", remedy=remedy)
        self.path = path


class CommandNotStarted(VcsimgError):
    """A program cannot be started. `exit_status` is what a shell would say: 127 not found, 126 not executable."""

    def __init__(self, command: str, errno: int) -> None:
        missing = errno == _errno.ENOENT
        super().__init__(f"{command}: {'command not found' if missing else os.strerror(errno)}")
        self.command = command
        self.errno = errno
        self.exit_status = 127 if missing else 126


class RestoreError(VcsimgError):
    """A capture cannot be run again. `option`, if any, would allow going on without the resource."""

    def __init__(self, resource: str, reason: str, *, option: str | None = None) -> None:
        super().__init__(f"cannot restore {resource}: {reason}", remedy=f"{option} restores without it." if option else None)
        self.resource = resource
        self.reason = reason
        self.option = option


class UnsupportedKernel(VcsimgError):
    def __init__(self, facility: str, reason: str) -> None:
        super().__init__(f"this kernel does not offer {facility}: {reason}", remedy="`vcsimg doctor` says what it offers.")
        self.facility = facility
