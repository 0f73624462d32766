"""Section `status`."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from contextlib import suppress

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call, Page
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.paths import Link
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.errors import BorrowError
from vcsimg.image.sections.status import Command, Credentials, Directory, Identity, MemoryBounds, Security, Settings
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import autogroup, mman, prctl
from vcsimg.kernel.procfs import Stat, parse_stat, parse_status
from vcsimg.kernel.syscalls import NR
from vcsimg.process import Borrowed

_GET_REGISTRATIONS = 1 << 9
"""MEMBARRIER_CMD_GET_REGISTRATIONS (linux/membarrier.h)."""
_NO_LOGIN = 0xFFFFFFFF
_FRESH = 128 << 10
"""Bytes of memory that nothing has touched: so many that they are a mapping of their own."""


def credentials(status: Mapping[str, str], securebits: int | None = None) -> Credentials:
    """What the lines of a status file say about what a thread may do."""
    filters = status.get("Seccomp_filters")
    return Credentials(
        uid=_numbers(status["Uid"]),
        gid=_numbers(status["Gid"]),
        groups=_numbers(status["Groups"]),
        inheritable=int(status["CapInh"], 16),
        permitted=int(status["CapPrm"], 16),
        effective=int(status["CapEff"], 16),
        bounding=int(status["CapBnd"], 16),
        ambient=int(status.get("CapAmb", "0"), 16),
        securebits=securebits,
        no_new_privs=status.get("NoNewPrivs", "0") == "1",
        seccomp=int(status.get("Seccomp", "0")),
        seccomp_filters=int(filters) if filters is not None else None,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def nested(text: str | None) -> tuple[int, ...] | None:
    """Ids in each pid namespace, from a line of a status file; None when there is only one."""
    found = _numbers(text or "")
    return found if len(found) > 1 else None


def _locked(status: bytes) -> int:
    """Kilobytes of locked memory."""
    start = status.find(b"\nVmLck:") + 7
    return int(status[start:].split(None, 1)[0]) if start > 7 else 0


class StatusReader:
    """Reads it for one process."""

    def prepare(self, proc: ProcDirectory) -> None:
        """While it runs: what belongs to its session more than to itself."""
        self._autogroup = proc.try_read_at_once("autogroup")

    def ask(self, ask: Borrowings) -> None:
        """Note what only the process itself can tell."""
        self._values: dict[str, Call] = {
            name: ask.call(NR["prctl"], number, 0, 0, 0, 0)
            for name, number in (
                ("dumpable", prctl.GET_DUMPABLE),
                ("securebits", prctl.GET_SECUREBITS),
                ("thp_disable", prctl.GET_THP_DISABLE),
                ("mdwe", prctl.GET_MDWE),
                ("memory_merge", prctl.GET_MEMORY_MERGE),
                ("mce_kill", prctl.MCE_KILL_GET),
            )
        }
        self._words: dict[str, tuple[Call, Buffer]] = {}
        for name, number in (("subreaper", prctl.GET_CHILD_SUBREAPER), ("tsc", prctl.GET_TSC)):
            buffer = ask.buffer(4)
            self._words[name] = (ask.call(NR["prctl"], number, buffer, 0, 0, 0), buffer)
        self._brk = ask.call(NR["brk"], 0)
        self._membarrier = ask.call(NR["membarrier"], _GET_REGISTRATIONS, 0, 0)
        self._futex_slots = ask.call(NR["prctl"], prctl.FUTEX_HASH, prctl.FUTEX_HASH_GET_SLOTS, 0, 0, 0)
        self._cold = ask.call(NR["madvise"], Page(), PAGE_SIZE, mman.MADV_COLD)
        self.lock_future = self.lock_on_fault = False

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._stopped = any(thread.group_stopped for thread in moment.held.threads)
        self._stat = moment.stat
        self._status = moment.status
        self.look(moment.proc)

    def look(self, proc: ProcDirectory) -> None:
        """Read what /proc has, but for stat and status."""
        self._exe = Link.read(proc, "exe")
        self._cwd = Link.read(proc, "cwd")
        self._root = Link.read(proc, "root")
        self._personality = proc.try_read_at_once("personality")
        self._label = proc.try_read_at_once("attr/current")
        self._loginuid = proc.try_read_at_once("loginuid")
        self._oom = proc.try_read_at_once("oom_score_adj")
        self._dump = proc.try_read_at_once("coredump_filter")

    def look_at_locks(self, moment: Moment, borrowed: Borrowed) -> None:
        """While it has memory that was borrowed: if that is locked, so is all that it gets (mlockall(2), MCL_FUTURE). Locked memory cannot be
        called cold (mm/madvise.c, can_madv_lru_vma)."""
        if self._cold.result != -errno.EINVAL or _locked(moment.proc.read_at_once("status")) <= _locked(moment.status):
            return
        self.lock_future = True
        with suppress(BorrowError):  # more than it may lock
            fresh = borrowed.scratch(_FRESH)
            answer = borrowed.scratch(_FRESH // PAGE_SIZE)
            borrowed.syscall(NR["mincore"], fresh, _FRESH, answer)
            self.lock_on_fault = not any(borrowed.read(answer, _FRESH // PAGE_SIZE))

    def finish(self, report: Report) -> None:
        """Write the section."""
        stat = parse_stat(self._stat)
        status = parse_status(self._status)
        report.add("status", self._identity(stat, status))
        report.add("status", self._command(stat, report))
        for role, link in (("cwd", self._cwd), ("root", self._root)):
            path, deleted = link.resolve()
            where = link.statx()
            report.add(
                "status",
                Directory(
                    role,
                    path,
                    where.device if where else None,
                    where.inode if where else None,
                    (where.mount or None) if where else None,
                    deleted,
                ),
            )
            if deleted:
                report.unsaved(f"directory {role}", "it was removed")
        report.add("status", credentials(status, self._value("securebits")), self._security(), self._memory(stat))
        report.add("status", self._settings())

    def _identity(self, stat: Stat, status: Mapping[str, str]) -> Identity:
        return Identity(
            pid=int(status["Tgid"]),
            parent=stat.ppid,
            group=stat.pgrp,
            session=stat.session,
            namespace_pids=_numbers(status.get("NStgid", str(stat.pid))),
            namespace_groups=nested(status.get("NSpgid")),
            namespace_sessions=nested(status.get("NSsid")),
            start=stat.starttime,
            exit_signal=stat.exit_signal,
            stopped=self._stopped,
            umask=int(status["Umask"], 8),
        )

    def _command(self, stat: Stat, report: Report) -> Command:
        where = self._exe.statx()
        if where is None:
            report.unsaved("executable", "the link exe of /proc cannot be read")
            return Command(stat.comm, None, None, None, None)
        path, deleted = self._exe.resolve()
        return Command(stat.comm, path, where.device, where.inode, deleted)

    def _security(self) -> Security:
        personality = int(self._personality, 16) if self._personality else None
        label = self._label.rstrip(b"\0\n").decode("utf-8", "surrogateescape") if self._label else ""
        login = int(self._loginuid) if self._loginuid else _NO_LOGIN
        return Security(
            dumpable=self._value("dumpable"),
            personality=personality,
            label=label or None,
            loginuid=login if login != _NO_LOGIN else None,
        )

    def _memory(self, stat: Stat) -> MemoryBounds:
        return MemoryBounds(
            start_code=stat.start_code,
            end_code=stat.end_code,
            start_data=stat.start_data,
            end_data=stat.end_data,
            start_brk=stat.start_brk,
            brk=self._brk.result,
            start_stack=stat.start_stack,
            arg_start=stat.arg_start,
            arg_end=stat.arg_end,
            env_start=stat.env_start,
            env_end=stat.env_end,
        )

    def _settings(self) -> Settings:
        merge = self._value("memory_merge")
        subreaper = self._word("subreaper")
        registered = self._membarrier.result
        slots = self._futex_slots.result
        group = autogroup.parse_nice(self._autogroup or b"")
        return Settings(
            oom_score_adj=int(self._oom) if self._oom else None,
            coredump_filter=int(self._dump, 16) if self._dump else None,
            subreaper=bool(subreaper) if subreaper is not None else None,
            thp_disable=self._value("thp_disable"),
            memory_merge=bool(merge) if merge is not None else None,
            mdwe=self._value("mdwe"),
            tsc=self._word("tsc"),
            mce_kill=self._value("mce_kill"),
            membarrier=registered if registered is not None and registered > 0 else None,
            lock_future=self.lock_future or None,
            lock_on_fault=self.lock_on_fault or None,
            futex_slots=slots if slots is not None and slots > 0 else None,
            autogroup_nice=(group[1] or None) if group is not None else None,
        )

    def _value(self, name: str) -> int | None:
        """The result of a borrowed prctl; None where the kernel has no such question, or nothing could be borrowed."""
        result = self._values[name].result
        return result if result is not None and result >= 0 else None

    def _word(self, name: str) -> int | None:
        call, buffer = self._words[name]
        value: int | None = struct.unpack("<i", buffer.data)[0] if call.result == 0 else None
        return value
