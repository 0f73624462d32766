"""The records of file `host`."""

from __future__ import annotations

import functools
import os
import resource

from vcsimg.image.sections import host as items
from vcsimg.image.sections.item import Item, records
from vcsimg.image.snapshot import Section
from vcsimg.kernel import cpuid
from vcsimg.kernel.procfs import boot_id

_UNSEEN = frozenset(
    (
        "arch_perfmon", "bts", "cpuid_fault", "nopl", "nonstop_tsc", "nonstop_tsc_s3", "pebs", "pti", "rep_good", "retpoline",
        "ssbd", "ibrs", "ibpb", "stibp", "ibrs_enhanced", "tsc_known_freq", "xtopology", "hypervisor", "md_clear", "flush_l1d",
    )
)  # fmt: skip
"""Words among the flags that stand for no instruction: they do not matter to a program that is moved."""


def host_records() -> Section:
    """The machine and kernel that vcsimg runs on now."""
    return _fixed(os.uname().nodename)


@functools.cache
def _fixed(name: str) -> Section:
    """All of it but the host's name stays the same until the next boot."""
    system = os.uname()
    info = _first_cpu()
    flags = sorted(set(info.get("flags", "").split()) - _UNSEEN)
    found: list[Item] = [
        items.Kernel(system.release, system.version, system.machine),
        items.Machine(name, boot_id(), resource.getpagesize(), os.sysconf("SC_CLK_TCK")),
        items.Cpu(
            info.get("vendor_id", ""),
            int(info.get("cpu family", "0")),
            int(info.get("model", "0")),
            int(info.get("stepping", "0")),
            info.get("model name", ""),
        ),
        items.CpuFeatures("|".join(flags) or "-"),
    ]
    layout = cpuid.xsave_layout()
    if layout is not None:
        found.append(items.Xsave(layout.features, layout.size))
        found += (items.XsaveComponent(*component) for component in layout.components)
    return records(found)


def _first_cpu() -> dict[str, str]:
    found: dict[str, str] = {}
    with open("/proc/cpuinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            name, colon, value = line.partition(":")
            if not colon:
                break
            found[name.strip()] = value.strip()
    return found
