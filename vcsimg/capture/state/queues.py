"""POSIX message queues: mq_overview(7)."""

from __future__ import annotations

import os

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import MessageQueue, QueueMessage, QueueWatch
from vcsimg.kernel import mqueue


class MessageQueueProbe:
    """Reads attributes, and messages: these can only be taken out, and are put back at once, while the process is stopped. Not if
    somebody is to be told when the queue is not empty any more (mq_notify(3)): that would happen then."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[MessageQueue, list[tuple[bytes, int]] | str, tuple[int, int, int] | None]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "regular" and descriptor.where.size == mqueue.FILE_SIZE

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        found = mqueue.attributes(own)
        if found is not None:
            queue = MessageQueue(descriptor.fd, *found)
            self._found[descriptor.fd] = (queue, *_messages(own, queue))

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        if descriptor.fd not in self._found:
            return
        found, messages, watch = self._found.pop(descriptor.fd)
        report.add("files", found)
        if watch is not None:
            self._describe_watch(descriptor.fd, watch, report)
        if isinstance(messages, str):
            report.unsaved(f"fd {descriptor.fd}", messages)
        else:
            report.add("files", *(QueueMessage(found.fd, priority, data) for data, priority in messages))

    @staticmethod
    def _describe_watch(fd: int, watch: tuple[int, int, int], report: Report) -> None:
        how, signal, process = watch
        if how == mqueue.SIGEV_THREAD:
            report.unsaved(f"fd {fd}", "that a thread is told of messages in the queue (mq_notify, SIGEV_THREAD) cannot be copied")
            return
        report.add("files", QueueWatch(fd, process, signal if how == mqueue.SIGEV_SIGNAL else 0))
        if how == mqueue.SIGEV_SIGNAL:
            report.unsaved(
                f"fd {fd}", f"the value that comes with signal {signal} when a message arrives (mq_notify) cannot be read"
            )


def _messages(own: int, queue: MessageQueue) -> tuple[list[tuple[bytes, int]] | str, tuple[int, int, int] | None]:
    """What waits, or what is not saved of it; and who is told of the next that comes."""
    try:
        reader = os.open(f"/proc/self/fd/{own}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return (
            f"{queue.messages} messages that wait in the queue cannot be copied: {error.strerror}" if queue.messages else [],
            None,
        )
    try:
        watch = mqueue.notified(reader)
        if watch is not None:
            # Put back, the first message would be told of.
            return f"{queue.messages} messages that wait in the queue cannot be copied" if queue.messages else [], watch
        messages: list[tuple[bytes, int]] = []
        try:
            while queue.messages and (message := mqueue.receive(reader, queue.message_size)) is not None:
                messages.append(message)
        finally:
            for data, priority in messages:
                mqueue.send(reader, data, priority)
        return messages, None
    finally:
        os.close(reader)
