"""POSIX message queues: mq_overview(7)."""

from __future__ import annotations

import os

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import MessageQueue, QueueMessage
from vcsimg.kernel import mqueue


class MessageQueueProbe:
    """Reads attributes, and messages: these can only be taken out, and are put back at once, while the process is stopped. Not if
    somebody is to be told when the queue is not empty any more (mq_notify(3)): that would happen then."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[MessageQueue, list[tuple[bytes, int]] | str]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "regular" and descriptor.where.size == mqueue.FILE_SIZE

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        found = mqueue.attributes(own)
        if found is not None:
            queue = MessageQueue(descriptor.fd, *found)
            self._found[descriptor.fd] = (queue, _messages(own, queue))

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        if descriptor.fd not in self._found:
            return
        found, messages = self._found.pop(descriptor.fd)
        report.add("files", found)
        if isinstance(messages, str):
            report.unsaved(f"fd {descriptor.fd}", messages)
        else:
            report.add("files", *(QueueMessage(found.fd, priority, data) for data, priority in messages))


def _messages(own: int, queue: MessageQueue) -> list[tuple[bytes, int]] | str:
    """What waits, or what is not saved of it."""
    try:
        reader = os.open(f"/proc/self/fd/{own}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"{queue.messages} messages that wait in the queue cannot be copied: {error.strerror}" if queue.messages else []
    try:
        if mqueue.notified(reader):
            return f"that a process is told of messages is not, nor are the {queue.messages} that wait"
        messages: list[tuple[bytes, int]] = []
        try:
            while queue.messages and (message := mqueue.receive(reader, queue.message_size)) is not None:
                messages.append(message)
        finally:
            for data, priority in messages:
                mqueue.send(reader, data, priority)
        return messages
    finally:
        os.close(reader)
