"""Differences as text and as JSON: forms that programs and people may rely on."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.export.images import anonymous, image
from vcsimg.history import Change, ProcessChange, ThreadChange, diff
from vcsimg.history.format import stat, text
from vcsimg.image.records import Record
from vcsimg.image.snapshot import Snapshot, Thread

BASE = 0x7F0000000000


def two() -> tuple[Snapshot, Snapshot]:
    """Two images with one difference of most kinds."""
    heap, stack = anonymous(BASE, 8192, name="[heap]"), anonymous(BASE + 0x100000, 4096, name="[stack]")
    page = bytearray(b"The quick brown fox jumps over the lazy dog.".ljust(4096, b"\0"))
    a = image([heap, stack, anonymous(BASE + 0x200000, 4096)], {BASE: bytes(page)}, Thread(100, {"rip": 16, "rsp": 5}))
    page[4:9], page[300] = b"QUICK", 1
    grown = replace(heap, end=heap.end + 4096)
    b = image(
        [grown, replace(stack, perms="rwxp"), anonymous(BASE + 0x300000, 2 << 20)],
        {BASE: bytes(page)},
        Thread(100, {"rip": 17, "rsp": 5}),
    )
    before = {"files": (Record.make("file", fd=1, offset=10), Record.make("file", fd=2, data="x" * 500))}
    after = {"files": (Record.make("file", fd=1, offset=20),)}
    return with_state(a, before), with_state(b, after)


def with_state(snapshot: Snapshot, state: dict[str, tuple[Record, ...]]) -> Snapshot:
    return replace(snapshot, processes=(replace(snapshot.processes[0], state=state),))


def test_text() -> None:
    assert list(text(diff(*two()))) == [
        "100 region 7f0000000000-7f0000003000 rw-p [heap]: grew from 8 KiB to 12 KiB",
        "100 region 7f0000100000-7f0000101000 rwxp [stack]: protection rw-p -> rwxp",
        "100 region 7f0000200000-7f0000201000 rw-p (anonymous): vanished (4 KiB)",
        "100 region 7f0000300000-7f0000500000 rw-p (anonymous): appeared (2 MiB)",
        "100 page 7f0000000000 [heap]: 6 bytes",
        "100 thread 100 registers: rip 0x10 -> 0x11",
        "100 files: file fd=1: offset 10 -> 20",
        f"100 files: - file fd=2 data={'x' * 145}… (515 characters)",
    ]


def test_hex() -> None:
    lines = list(text(diff(*two()), with_bytes=True))
    start = lines.index("100 page 7f0000000000 [heap]: 6 bytes")
    assert lines[start + 1 : start + 9] == [
        "- 7f0000000000  54 68 65 20 71 75 69 63  6b 20 62 72 6f 77 6e 20  |The quick brown |",
        "+ 7f0000000000  54 68 65 20 51 55 49 43  4b 20 62 72 6f 77 6e 20  |The QUICK brown |",
        "  7f0000000010  66 6f 78 20 6a 75 6d 70  73 20 6f 76 65 72 20 74  |fox jumps over t|",
        "  …",
        "  7f0000000110  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
        "- 7f0000000120  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
        "+ 7f0000000120  00 00 00 00 00 00 00 00  00 00 00 00 01 00 00 00  |................|",
        "  7f0000000130  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
    ]


def test_stat() -> None:
    assert list(stat(diff(*two()))) == [
        "100 7f0000000000-7f0000003000 rw-p [heap]: grew from 8 KiB to 12 KiB; 1 page, 6 bytes",
        "100 7f0000100000-7f0000101000 rwxp [stack]: protection rw-p -> rwxp",
        "100 7f0000200000-7f0000201000 rw-p (anonymous): vanished (4 KiB)",
        "100 7f0000300000-7f0000500000 rw-p (anonymous): appeared (2 MiB)",
        "4 regions, 1 page, 6 bytes, 1 thread, 2 records changed",
    ]


def test_nothing_changed() -> None:
    a, _ = two()
    assert list(text(diff(a, a))) == []
    assert list(stat(diff(a, a))) == ["0 regions, 0 pages, 0 bytes, 0 threads, 0 records changed"]


def test_processes_threads_and_the_host() -> None:
    a, _ = two()
    host = replace(a, host=(Record.make("kernel", release="6.1"),)), replace(a, host=(Record.make("kernel", release="6.2"),))
    changes: list[Change] = [*diff(*host), ProcessChange(7, "appeared", "a b"), ThreadChange(7, 8, "vanished")]
    assert list(text(changes)) == [
        "host: kernel release=6.2: release 6.1 -> 6.2",
        'process 7 "a b" appeared',
        "7 thread 8 vanished",
    ]


def test_json() -> None:
    plain = [json.loads(json.dumps(change.to_json())) for change in diff(*two())]
    assert [(item["type"], item["pid"]) for item in plain] == [("region", 100)] * 4 + [("page", 100), ("registers", 100)] + [
        ("record", 100)
    ] * 2
    page = plain[4]
    assert page["address"] == BASE
    assert page["region"] == "[heap]"
    assert page["runs"] == [
        {"address": BASE + 4, "before": b"quick".hex(), "after": b"QUICK".hex()},
        {"address": BASE + 300, "before": "00", "after": "01"},
    ]
    assert plain[0]["kinds"] == ["grew"]
    assert plain[0]["after"][0]["end"] == BASE + 12288
    assert plain[5]["general"] == {"rip": [16, 17]}
    assert plain[6]["before"] == "file fd=1 offset=10"
