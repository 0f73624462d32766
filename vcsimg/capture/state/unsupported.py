"""Descriptors that no later restore can make again, because their state is in a driver or cannot be read. They are named."""

from __future__ import annotations

from vcsimg.capture.state.descriptors import Descriptor
from vcsimg.capture.state.report import Report

_READ = frozenset(
    (
        "regular",
        "memfd",
        "directory",
        "symlink",
        "pipe",
        "fifo",
        "socket",
        "eventfd",
        "eventpoll",
        "inotify",
        "timerfd",
        "signalfd",
        "pidfd",
    )
)
_STATELESS_DEVICES = frozenset(("01:03", "01:05", "01:07", "01:08", "01:09", "05:00", "05:02"))
"""null, zero, full, random, urandom; tty and ptmx are read as terminals (Documentation/admin-guide/devices.txt)."""
_TERMINAL_MAJORS = frozenset(range(0x88, 0x90)) | {4}
_REASONS = {
    "namespace": "a namespace cannot be made again",
    "io_uring": "an io_uring cannot be copied",
    "userfaultfd": "a userfaultfd cannot be copied",
    "block": "a block device is not part of the image",
}


def describe_unsupported(descriptor: Descriptor, report: Report) -> None:
    """Note a descriptor whose state is not saved."""
    kind = descriptor.type
    if kind in _READ:
        return
    if kind == "character":
        special = descriptor.where.special
        if special in _STATELESS_DEVICES or int(special.partition(":")[0], 16) in _TERMINAL_MAJORS:
            return
        report.unsaved(f"fd {descriptor.fd}", f"the state of device {descriptor.text} is in its driver")
        return
    report.unsaved(f"fd {descriptor.fd}", _REASONS.get(kind, f"a descriptor of kind {kind} cannot be copied"))
