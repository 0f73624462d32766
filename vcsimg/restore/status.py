"""What a process is besides memory, threads and files: directories, umask, limits, credentials, settings."""

from __future__ import annotations

import os
import struct

from vcsimg.errors import RestoreError
from vcsimg.image.sections.item import select
from vcsimg.image.sections.program import ResourceLimit
from vcsimg.image.sections.status import Credentials, Directory, Identity, Security, Settings
from vcsimg.image.sections.thread import ThreadSettings
from vcsimg.image.snapshot import Thread
from vcsimg.kernel import autogroup, mman
from vcsimg.kernel import prctl_set as prctl
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.context import Context
from vcsimg.restore.remote import Call, Remote, failed
from vcsimg.restore.seccomp import restore_seccomp
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.spent import left_of

_LIMITS = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice",
    "rtprio", "rttime",
)  # fmt: skip
"""By their numbers in getrlimit(2)."""
_WAITING = "sigpending"
_CAPABILITY_VERSION = 0x20080522
_PR_CAPBSET_DROP = 24
_LAST_CAP = 40
_TSC_ENABLE = 1


def restore_places(skeleton: Skeleton, context: Context) -> None:
    """Current directory, root, umask, personality. Raises RestoreError."""
    remote = skeleton.main
    status = skeleton.process.section("status")
    what = f"process {skeleton.pid}"
    directories = {directory.role: directory for directory in select(status, Directory)}
    for role, number in (("root", NR["chroot"]), ("cwd", NR["chdir"])):
        directory = directories.get(role)
        if directory is None or (role == "root" and directory.path == "/"):
            continue
        path = directory.path
        if directory.deleted:
            try:
                os.mkdir(context.root + path)
            except OSError as error:
                reason = f"the directory was removed, and cannot be made again: {error.strerror}"
                raise RestoreError(f"{what} {role} {path}", reason) from None
        if role == "cwd" and "root" in directories and directories["root"].path != "/":
            path = path.removeprefix(directories["root"].path) or "/"
        remote.all([(number, (remote.string(path),))], f"{what} {role} {directory.path}")
        if directory.deleted:
            os.rmdir(context.root + directory.path)
    for identity in select(status, Identity):
        remote.call(NR["umask"], identity.umask & 0o777)
    for security in select(status, Security):
        if security.personality is not None:
            remote.all([(NR["personality"], (security.personality,))], f"{what} personality")
    remote.clear()


def restore_settings(skeleton: Skeleton, context: Context) -> None:
    """prctl(2) and /proc settings of the whole process."""
    remote = skeleton.main
    for settings in select(skeleton.process.section("status"), Settings):
        calls: list[Call] = [(NR["prctl"], (prctl.SET_CHILD_SUBREAPER, int(bool(settings.subreaper)), 0, 0, 0))]
        if settings.thp_disable is not None:
            calls.append((NR["prctl"], (prctl.SET_THP_DISABLE, settings.thp_disable & 1, settings.thp_disable & ~1, 0, 0)))
        if settings.memory_merge:
            calls.append((NR["prctl"], (prctl.SET_MEMORY_MERGE, 1, 0, 0, 0)))
        if settings.mdwe:
            calls.append((NR["prctl"], (prctl.SET_MDWE, settings.mdwe, 0, 0, 0)))
        if settings.tsc is not None and settings.tsc != _TSC_ENABLE:
            calls.append((NR["prctl"], (prctl.SET_TSC, settings.tsc, 0, 0, 0)))
        if settings.mce_kill is not None:
            calls.append((NR["prctl"], (prctl.MCE_KILL, prctl.MCE_KILL_SET, settings.mce_kill, 0, 0)))
        for bit in range((settings.membarrier or 0).bit_length()):
            if (settings.membarrier or 0) >> bit & 1:
                remote.all([(NR["membarrier"], (1 << bit, 0, 0))], f"process {skeleton.pid} membarrier")
        if settings.lock_future:
            how = mman.MCL_FUTURE | (mman.MCL_ONFAULT if settings.lock_on_fault else 0)
            remote.all([(NR["mlockall"], (how,))], f"process {skeleton.pid} mlockall")
        if settings.futex_slots:
            slots, now = (
                settings.futex_slots,
                remote.batch([(NR["prctl"], (prctl.FUTEX_HASH, prctl.FUTEX_HASH_GET_SLOTS, 0, 0, 0))]),
            )
            if now != [slots]:
                calls.append((NR["prctl"], (prctl.FUTEX_HASH, prctl.FUTEX_HASH_SET_SLOTS, slots, 0, 0)))
        for (_, args), result in zip(calls, remote.batch(calls), strict=True):
            if failed(result):
                context.notes.append(f"process {skeleton.pid}: prctl {args[0]} failed: {os.strerror(-result)}")
        if settings.coredump_filter is not None:
            _write_setting(skeleton, context, "coredump_filter", hex(settings.coredump_filter))
        if settings.oom_score_adj is not None:
            _write_setting(skeleton, context, "oom_score_adj", str(settings.oom_score_adj))
        if settings.autogroup_nice:
            _set_autogroup(skeleton, context, settings.autogroup_nice)


def _set_autogroup(skeleton: Skeleton, context: Context, nice: int) -> None:
    """Of its session: the first process of that does it for all."""
    what = f"process {skeleton.pid}: the autogroup of its session has not the nice value {nice}"
    try:
        group = autogroup.of(skeleton.tid)
        if group is None:
            context.notes.append(f"{what}: this kernel has none")
        elif group == autogroup.of(os.getpid()):
            context.notes.append(f"{what}: that is the session of vcsimg")
        elif group[1] != nice:
            autogroup.set_nice(skeleton.tid, nice)
    except OSError as error:
        context.notes.append(f"{what}: {error.strerror}")


def _write_setting(skeleton: Skeleton, context: Context, name: str, value: str) -> None:
    path = f"/proc/{skeleton.tid}/{name}"
    try:
        with open(path, "r+") as file:
            if file.read().split()[0].lstrip("0") == value.removeprefix("0x"):
                return
            file.write(value)
    except (OSError, IndexError):
        context.notes.append(f"process {skeleton.pid}: {name} could not be set")


def restore_limits(skeleton: Skeleton, context: Context, *, waiting: bool) -> None:
    """After everything that needs more than the limits allow. `waiting`: the one for signals that wait, and timers; else the others."""
    remote = skeleton.main
    found = select(skeleton.process.section("limits"), ResourceLimit)
    wanted_now = [limit for limit in found if limit.resource in _LIMITS and (not waiting or limit.resource == _WAITING)]
    limits = [left_of(skeleton.process, limit, context.notes) for limit in wanted_now]
    olds = remote.room(16 * len(limits))
    remote.all(
        [(NR["prlimit64"], (0, _LIMITS.index(limit.resource), 0, olds + 16 * index)) for index, limit in enumerate(limits)],
        "limits",
    )
    current = remote.read(olds, 16 * len(limits))
    calls: list[Call] = []
    names = []
    for index, limit in enumerate(limits):
        _, hard = struct.unpack_from("<QQ", current, 16 * index)
        wanted = (limit.soft, limit.hard)
        if limit.resource == _WAITING and not waiting:
            # Raised while it may be; lowered later.
            wanted = (max(limit.hard, hard),) * 2
        attempts = [wanted] if limit.hard <= hard else [wanted, (min(limit.soft, hard), hard)]
        for attempt in attempts:
            calls.append((NR["prlimit64"], (0, _LIMITS.index(limit.resource), remote.put(struct.pack("<QQ", *attempt)), 0)))
            names.append((limit, attempt == wanted))
    reached: set[str] = set()
    for (limit, exact), result in zip(names, remote.batch(calls), strict=True):
        if not failed(result) and exact:
            reached.add(limit.resource)
    for limit in limits:
        if limit.resource not in reached:
            context.notes.append(f"process {skeleton.pid}: its hard limit for {limit.resource} is lower than it was")
    remote.clear()


def restore_rights(skeleton: Skeleton, thread: Thread, context: Context, *, user_namespace: bool) -> None:
    """Credentials of a thread; then what a change of them would undo. Raises RestoreError."""
    remote = skeleton.threads[thread.tid]
    own = select(thread.records, Credentials) or select(skeleton.process.section("status"), Credentials)
    if own:
        restore_seccomp(skeleton, thread, own[0])
        _credentials(remote, own[0], context, f"thread {thread.tid}", user_namespace)
    if thread is skeleton.process.threads[0]:
        for security in select(skeleton.process.section("status"), Security):
            if security.dumpable is not None:
                remote.batch([(NR["prctl"], (prctl.SET_DUMPABLE, int(security.dumpable == 1), 0, 0, 0))])
    for settings in select(thread.records, ThreadSettings):
        if settings.parent_death_signal:
            remote.all([(NR["prctl"], (prctl.SET_PDEATHSIG, settings.parent_death_signal))], f"thread {thread.tid}")
    remote.clear()


def _credentials(remote: Remote, wanted: Credentials, context: Context, what: str, user_namespace: bool) -> None:
    if len(wanted.uid) != 4 or len(wanted.gid) != 4:
        raise RestoreError(f"{what} credentials", "they need four user and four group ids")
    known = remote.room(32)
    remote.all([(NR["capget"], (remote.put(struct.pack("<Ii", _CAPABILITY_VERSION, 0)), known))], what)
    _, permitted, _, _, permitted_high, _ = struct.unpack("<6I", remote.read(known, 24))
    have = permitted | permitted_high << 32
    if have and not user_namespace:
        _become(remote, wanted, what)
    elif user_namespace and len({*wanted.uid}) > 1:
        context.notes.append(f"{what} has one user id for all of {', '.join(map(str, sorted({*wanted.uid})))}")
    calls: list[Call] = [
        (NR["prctl"], (_PR_CAPBSET_DROP, cap)) for cap in range(_LAST_CAP + 1) if have and not wanted.bounding >> cap & 1
    ]
    remote.batch(calls)
    new_permitted = wanted.permitted & have
    new_effective = wanted.effective & have
    new_inheritable = wanted.inheritable & (have if user_namespace or not have else wanted.inheritable)
    caps = struct.pack(
        "<6I",
        new_effective & 0xFFFFFFFF, new_permitted & 0xFFFFFFFF, new_inheritable & 0xFFFFFFFF,
        new_effective >> 32, new_permitted >> 32, new_inheritable >> 32,
    )  # fmt: skip
    if wanted.securebits:
        remote.all([(NR["prctl"], (prctl.SET_SECUREBITS, wanted.securebits, 0, 0, 0))], f"{what} securebits")
    remote.all([(NR["capset"], (remote.put(struct.pack("<Ii", _CAPABILITY_VERSION, 0)), remote.put(caps)))], f"{what} capabilities")
    ambient: list[Call] = [
        (NR["prctl"], (prctl.CAP_AMBIENT, prctl.CAP_AMBIENT_RAISE, cap, 0, 0))
        for cap in range(_LAST_CAP + 1)
        if wanted.ambient >> cap & 1
    ]
    remote.batch(ambient)
    if wanted.no_new_privs:
        remote.all([(NR["prctl"], (prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0))], what)
    if new_permitted != wanted.permitted:
        context.notes.append(f"{what} lacks capabilities that it had")


def _become(remote: Remote, wanted: Credentials, what: str) -> None:
    groups = remote.put(struct.pack(f"<{len(wanted.groups)}I", *(group & 0xFFFFFFFF for group in wanted.groups)) or b"\0")
    real, effective, saved, file = wanted.gid
    uids = wanted.uid
    calls: list[Call] = [
        (NR["prctl"], (prctl.SET_KEEPCAPS, 1, 0, 0, 0)),
        (NR["setgroups"], (len(wanted.groups), groups)),
        (NR["setresgid"], (real, effective, saved)),
        (NR["setresuid"], uids[:3]),
        (NR["prctl"], (prctl.SET_KEEPCAPS, 0, 0, 0, 0)),
    ]
    remote.all(calls, f"{what} credentials")
    if file != effective:
        remote.call(NR["setfsgid"], file)
    if uids[3] != uids[1]:
        remote.call(NR["setfsuid"], uids[3])


def ids_inside(status: Credentials | None) -> tuple[int, int]:
    """Whom the user is inside a user namespace: whom the root process was."""
    if status is None or len(status.uid) != 4 or len(status.gid) != 4:
        return os.geteuid(), os.getegid()
    return status.uid[1], status.gid[1]
