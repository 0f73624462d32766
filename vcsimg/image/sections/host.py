"""The records of file `host`: the machine and the kernel that the capture was made on."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item


@dataclass(frozen=True, slots=True)
class Kernel(Item, kind="kernel"):
    """uname(2)."""

    release: str
    version: str
    machine: str


@dataclass(frozen=True, slots=True)
class Machine(Item, kind="machine"):
    """`boot_id`: random, made at each boot. `page_size` in bytes, `clock_ticks` a second: the unit of start times."""

    name: str
    boot_id: str
    page_size: int
    clock_ticks: int


@dataclass(frozen=True, slots=True)
class Cpu(Item, kind="cpu"):
    """The first CPU of /proc/cpuinfo."""

    vendor: str
    family: int
    model: int
    stepping: int
    name: str


@dataclass(frozen=True, slots=True)
class CpuFeatures(Item, kind="cpu_features"):
    """Flags of /proc/cpuinfo that a program can use, sorted, joined by |."""

    names: str


@dataclass(frozen=True, slots=True)
class Xsave(Item, kind="xsave"):
    """The XSAVE area: XCR0, and its size in bytes in the uncompacted format for the features in XCR0 (CPUID leaf 0xd)."""

    features: Hex
    size: int


@dataclass(frozen=True, slots=True)
class XsaveComponent(Item, kind="xsave_component"):
    """A component beyond the legacy area, in the uncompacted format: bytes [offset, offset + size)."""

    number: int
    offset: int
    size: int
