"""Text descriptions of everything in an image that is not memory or registers: one class a kind of record, one module a resource.

docs/sections.md explains each section, kind and key.
"""

from __future__ import annotations

from collections.abc import Mapping

from vcsimg.image.sections import (
    contents,
    family,
    files,
    host,
    ipc,
    pipes,
    places,
    program,
    seccomp,
    signals,
    sockets,
    status,
    terminals,
    thread,
    timers,
)
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.unsaved import Unsaved

SECTIONS: Mapping[str, tuple[type[Item], ...]] = {
    "status": (
        status.Identity,
        status.Command,
        status.Directory,
        status.Credentials,
        status.Security,
        status.MemoryBounds,
        status.Settings,
        status.Guard,
        status.RegionPolicy,
        status.SessionKeyring,
    ),
    "auxv": (program.AuxvEntry,),
    "cmdline": (program.Argument,),
    "environ": (program.Variable,),
    "limits": (program.ResourceLimit,),
    "namespaces": (places.Namespace, places.IdMap, places.TimeOffset, places.HostName),
    "cgroup": (places.Cgroup,),
    "mounts": (places.Mount,),
    "files": (
        files.File,
        files.Duplicate,
        files.Owner,
        files.Eventfd,
        files.Signalfd,
        files.EpollQuiet,
        files.EpollPolling,
        files.EpollWatch,
        files.InotifyWatch,
        files.Pidfd,
        files.Sealed,
        files.MessageQueue,
        files.QueueWatch,
        files.QueueMessage,
    ),
    "contents": (contents.Content,),
    "locks": (files.Lock,),
    "pipes": (pipes.Pipe, pipes.PipeData),
    "sockets": (
        sockets.Socket,
        sockets.Options,
        sockets.Message,
        sockets.Passed,
        sockets.WaitingConnection,
        sockets.Tcp,
        sockets.Unsent,
        sockets.Netlink,
        sockets.Membership,
        sockets.SocketFilter,
    ),
    "terminals": (terminals.Control, terminals.Terminal, terminals.Queued),
    "signals": (signals.Disposition, signals.Handler, thread.Pending),
    "timers": (timers.IntervalTimer, timers.PosixTimer, timers.TimerDescriptor, timers.ProcessorTime),
    "seccomp": (seccomp.SeccompFilter,),
    "ipc": (ipc.Segment, ipc.SegmentData, ipc.Semaphores, ipc.Queue, ipc.QueuedMessage),
    "family": (family.Child, family.Zombie),
    "shared": (family.SharedFile, family.SharedTable),
    "unsaved": (Unsaved,),
}
"""Every section of a process, and the kinds of records in it."""

THREAD: tuple[type[Item], ...] = (
    thread.Name,
    thread.NamespaceTids,
    thread.SignalMask,
    thread.Pending,
    thread.Dequeued,
    thread.Altstack,
    thread.TidAddress,
    thread.RobustList,
    thread.Rseq,
    thread.Scheduling,
    thread.ThreadSettings,
    thread.MemoryPolicy,
    thread.Call,
    thread.UserDispatch,
    status.Credentials,
    seccomp.SeccompFilter,
)
"""Kinds of records of a thread."""

HOST: tuple[type[Item], ...] = (host.Kernel, host.Machine, host.Cpu, host.CpuFeatures, host.Xsave, host.XsaveComponent)
"""Kinds of records of the file `host`."""
