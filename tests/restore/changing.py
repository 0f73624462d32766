"""tests/targets/restore_versions.c, captured and ended; its files are changed, and it is restored. Run as a program, as whoever runs it:

python -m tests.restore.changing FOLDER PROGRAM CHANGE:POLICY …      prints those that go wrong
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.restore.reviving import Captured, capture, revive
from vcsimg.errors import RestoreError

NAMES = ("config", "file", "log", "map")
PATTERN = bytes(ord("A") + index * 7 % 26 for index in range(300_000))
MAPPED = bytes(5000) + b"m" * 200 + bytes(4800)
CAPTURED = {"config": b"settings\n", "file": PATTERN, "log": b"before\n", "map": MAPPED}
LATER = {**CAPTURED, "file": PATTERN + b"after", "log": b"before\nafter\n", "map": b"a" + MAPPED[1:]}
"""When the restored program has written to what it was captured with."""


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"meanwhile")


def truncated(path: Path) -> None:
    os.truncate(path, 3)


def replaced(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(b"another one of another size")
    new.rename(path)


def written(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"xyz")


def gone(path: Path) -> None:
    path.unlink()


CHANGES: Mapping[str, Callable[[Path], None]] = {
    "grown": grown,
    "truncated": truncated,
    "replaced": replaced,
    "written": written,
    "gone": gone,
}
SAID = {
    "grown": "has grown from",
    "truncated": "has been truncated from",
    "replaced": "been replaced",
    "written": "has been written",
    "gone": "gone",
}


def present(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def start(program: Path, folder: Path) -> Captured:
    """The program, captured and ended."""
    (folder / "config").write_bytes(CAPTURED["config"])
    captured = capture([program], folder)
    captured.kill()
    assert captured.ready == "ready"
    assert present(folder) == CAPTURED
    return captured


def check(program: Path, change: str, policy: str, folder: Path) -> None:
    """Restore it after a change to all of its files, and see what has become of them."""
    captured = start(program, folder)
    for name in NAMES:
        CHANGES[change](folder / name)
    now = present(folder)
    try:
        if policy == "fail":
            refused(captured, change, folder)
            return
        revived = revive(captured.repository, captured.commit, files=policy)
        same = policy == "rollback" or change == "gone"
        text, status = revived.finish(b"same\n" if same else b"other\n")
        assert (text, status) == ("verified\n", 42), text
        notes = revived.restored.notes
        assert len(notes) == len(NAMES), notes
        for name, note in zip(NAMES, sorted(notes, key=lambda note: note.partition("file /")[2]), strict=True):
            assert f"file {folder / name}" in note
            assert SAID[change] in note, note
        after = present(folder)
        if policy == "keep":
            assert after.keys() == now.keys()
            return
        for name in NAMES:
            assert after.pop(name) == LATER[name], name
        for name, content in now.items():
            (kept,) = (other for other in after if other.startswith(f"{name}.before-rollback."))
            assert any(str(folder / kept) in note for note in notes), notes
            assert after.pop(kept) == content
        assert not after
    finally:
        captured.repository.close()


def refused(captured: Captured, change: str, folder: Path) -> None:
    """Restoring is refused; every file that has changed is named, and nothing else has happened."""
    now = present(folder)
    with pytest.raises(RestoreError) as caught:
        revive(captured.repository, captured.commit, files="fail").close()
    for name in NAMES:
        assert f"file {folder / name}" in str(caught.value)
    assert SAID[change] in str(caught.value)
    assert caught.value.option == "--files keep"
    assert present(folder) == now


def main() -> int:
    failed = 0
    for word in sys.argv[3:]:
        change, _, policy = word.partition(":")
        try:
            check(Path(sys.argv[2]), change, policy, Path(tempfile.mkdtemp(dir=sys.argv[1])))
        except Exception:
            print(word)
            traceback.print_exc()
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
