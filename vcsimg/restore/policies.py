"""Memory policies of regions: on which NUMA nodes their pages may lie (mbind(2))."""

from __future__ import annotations

import os

from vcsimg.errors import HostileImage
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import RegionPolicy
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import failed
from vcsimg.restore.skeleton import TASK_SIZE, Skeleton

_NODES = 1024


def restore_policies(skeleton: Skeleton, notes: list[str]) -> None:
    """When regions are mapped and have no content yet: the policy decides where that goes. Raises HostileImage."""
    remote = skeleton.main
    for policy in select(skeleton.process.section("status"), RegionPolicy):
        if policy.start % PAGE_SIZE or not policy.start < policy.end <= TASK_SIZE:
            raise HostileImage(f"process {skeleton.pid}", f"a memory policy at {policy.start:#x}-{policy.end:#x}")
        nodes = remote.put((policy.nodes & (1 << _NODES) - 1).to_bytes(_NODES // 8, "little"))
        arguments = (policy.start, policy.end - policy.start, policy.mode, nodes, _NODES, 0)
        (result,) = remote.batch([(NR["mbind"], arguments)])
        if failed(result):
            notes.append(
                f"process {skeleton.pid}: memory at {policy.start:#x} has not the policy that it had (mbind): {os.strerror(-result)}"
            )
        remote.clear()
