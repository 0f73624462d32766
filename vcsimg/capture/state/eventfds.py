"""Descriptors of which fdinfo tells all: eventfd, signalfd, timerfd, pidfd. Formats: proc_pid_fdinfo(5)."""

from __future__ import annotations

import ctypes

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import Eventfd, Pidfd, Signalfd
from vcsimg.image.sections.timers import TimerDescriptor
from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR


def describe_eventfd(descriptor: Descriptor, report: Report) -> None:
    """The count is hexadecimal without a prefix (fs/eventfd.c)."""
    if descriptor.type == "eventfd":
        values = descriptor.values()
        semaphore = values.get("eventfd-semaphore")  # since Linux 6.5
        report.add(
            "files", Eventfd(descriptor.fd, int(values["eventfd-count"], 16), semaphore == "1" if semaphore is not None else None)
        )
        if semaphore is None:
            report.unsaved(f"fd {descriptor.fd}", "this kernel does not tell whether it is EFD_SEMAPHORE")


def describe_signalfd(descriptor: Descriptor, report: Report) -> None:
    """The mask: bit n - 1 for signal n."""
    if descriptor.type == "signalfd":
        report.add("files", Signalfd(descriptor.fd, int(descriptor.values()["sigmask"], 16)))


class TimerfdProbe:
    """Reads timerfds. Remaining time changes by itself, so it stands in section timers.

    What has expired since the last look is counted when somebody looks (fs/timerfd.c, timerfd_do_gettime): so that is done first. It changes
    nothing that the process can see.
    """

    def __init__(self) -> None:
        self._values: dict[int, dict[str, str]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "timerfd"

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        values = descriptor.values()
        if int(values["ticks"]) and _nanoseconds(values["it_interval"]):
            call(NR["timerfd_gettime"], own, ctypes.addressof(ctypes.create_string_buffer(32)))
            with open(f"/proc/self/fdinfo/{own}") as info:
                values = {name: value.strip() for name, _, value in (line.partition(":") for line in info)}
        self._values[descriptor.fd] = values

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        values = self._values.pop(descriptor.fd)
        report.add(
            "timers",
            TimerDescriptor(
                fd=descriptor.fd,
                clock=int(values["clockid"]),
                flags=int(values["settime flags"], 8),
                ticks=int(values["ticks"]),
                remaining=_nanoseconds(values["it_value"]),
                interval=_nanoseconds(values["it_interval"]),
            ),
        )


def _nanoseconds(text: str) -> int:
    """From `(seconds, nanoseconds)`."""
    seconds, nanoseconds = text.strip("()").split(",")
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def describe_pidfd(descriptor: Descriptor, report: Report) -> None:
    """Pid -1: the process has ended and was waited for."""
    if descriptor.type == "pidfd":
        values = descriptor.values()
        inner = tuple(int(word) for word in values.get("NSpid", "").split())
        report.add("files", Pidfd(descriptor.fd, int(values["Pid"]), inner))
