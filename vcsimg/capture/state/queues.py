"""POSIX message queues: mq_overview(7)."""

from __future__ import annotations

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import MessageQueue
from vcsimg.kernel import mqueue


class MessageQueueProbe:
    """Reads attributes; messages cannot be read without taking them out."""

    def __init__(self) -> None:
        self._found: dict[int, MessageQueue | None] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "regular" and descriptor.where.size == mqueue.FILE_SIZE

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        found = mqueue.attributes(own)
        self._found[descriptor.fd] = MessageQueue(descriptor.fd, *found) if found else None

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        found = self._found.pop(descriptor.fd)
        if found is not None:
            report.add("files", found)
            if found.messages:
                report.unsaved(f"fd {descriptor.fd}", f"{found.messages} messages that wait in the queue cannot be copied")
