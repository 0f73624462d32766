"""Files that have changed since a capture: what `--files keep`, `rollback` and `fail` do about each."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import compile_target, home_of_nobody
from tests.restore.changing import CAPTURED, CHANGES, LATER, NAMES, PATTERN, check, present, start
from tests.restore.reviving import Captured, capture, revive
from vcsimg.capture import Options
from vcsimg.errors import DamagedImage, HostileImage, RestoreError, VcsimgError
from vcsimg.image.records import Record
from vcsimg.image.snapshot import Snapshot
from vcsimg.kernel import naming
from vcsimg.recording import Recorder
from vcsimg.restore import RestoreOptions, restore

ROOT = Path(__file__).parent.parent.parent
POLICIES = ("keep", "rollback", "fail")


@pytest.fixture
def program() -> Path:
    return compile_target("restore_versions")


@pytest.fixture
def captured(program: Path, tmp_path: Path) -> Iterator[Captured]:
    """The program, captured and ended; its files are in tmp_path."""
    found = start(program, tmp_path)
    yield found
    found.repository.close()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change(change: str, policy: str, program: Path, tmp_path: Path) -> None:
    check(program, change, policy, tmp_path)


def test_as_an_ordinary_user(program: Path, tmp_path: Path, as_nobody: list[str]) -> None:
    home = home_of_nobody(tmp_path)
    words = [f"{change}:{policy}" for change in CHANGES for policy in ("keep", "rollback")]
    command = [*as_nobody, sys.executable, "-m", "tests.restore.changing", str(home), str(program), *words]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize("policy", POLICIES)
def test_files_that_were_only_touched_have_not_changed(policy: str, captured: Captured, tmp_path: Path) -> None:
    for name in NAMES:
        os.utime(tmp_path / name, (1, 1))
    revived = revive(captured.repository, captured.commit, files=policy)
    assert revived.finish(b"same\n") == ("verified\n", 42)
    assert revived.restored.notes == ()
    assert present(tmp_path) == LATER


def test_what_was_written_through_a_mapping_is_noticed_though_the_times_are_those_of_the_capture(
    captured: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "map"
    facts = path.stat()
    with path.open("r+b") as file:
        file.write(b"through another mapping")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(RestoreError, match="the file has been written since the capture"):
        revive(captured.repository, captured.commit, files="fail")


def test_a_file_that_is_brought_back_has_its_times_and_permissions(captured: Captured, tmp_path: Path) -> None:
    path = tmp_path / "file"
    facts = path.stat()
    times = (tmp_path / "config").stat().st_mtime_ns
    path.unlink()
    (tmp_path / "config").unlink()
    revived = revive(captured.repository, captured.commit, files="rollback")
    assert revived.finish(b"same\n") == ("verified\n", 42)
    assert (tmp_path / "config").stat().st_mtime_ns == times
    assert path.stat().st_mode & 0o777 == facts.st_mode & 0o777


def test_a_file_with_other_names_remains_the_same_file(captured: Captured, tmp_path: Path) -> None:
    os.link(tmp_path / "file", tmp_path / "second")
    (tmp_path / "file").write_bytes(b"new")
    inode = (tmp_path / "file").stat().st_ino
    revived = revive(captured.repository, captured.commit, files="rollback")
    assert revived.finish(b"same\n") == ("verified\n", 42)
    assert (tmp_path / "file").stat().st_ino == inode == (tmp_path / "second").stat().st_ino
    files = present(tmp_path)
    assert files["second"] == LATER["file"]
    (kept,) = (name for name in files if name.startswith("file.before-rollback."))
    assert files[kept] == b"new"


def test_a_log_that_others_append_to_remains_theirs(captured: Captured, tmp_path: Path) -> None:
    with (tmp_path / "config").open() as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:
            pytest.skip("a file system without leases does not tell whether others have a file open")
    with (tmp_path / "log").open("ab", buffering=0) as other:
        other.write(b"of another\n")
        revived = revive(captured.repository, captured.commit, files="rollback")
        assert revived.finish(b"same\n") == ("verified\n", 42)
        other.write(b"and on\n")
    files = present(tmp_path)
    assert files["log"] == b"before\nafter\nand on\n"
    (kept,) = (name for name in files if name.startswith("log.before-rollback."))
    assert files[kept] == b"before\nof another\n"


def test_whoever_has_a_file_open_goes_on_with_what_is_kept(captured: Captured, tmp_path: Path) -> None:
    with (tmp_path / "file").open("r+b", buffering=0) as other:
        other.write(b"xyz")
        revived = revive(captured.repository, captured.commit, files="rollback")
        assert revived.finish(b"same\n") == ("verified\n", 42)
        other.write(b"123")
    files = present(tmp_path)
    assert files["file"] == LATER["file"]
    (kept,) = (name for name in files if name.startswith("file.before-rollback."))
    assert files[kept] == b"xyz123" + PATTERN[6:]


def test_folders_that_are_gone_are_made_again(tmp_path: Path) -> None:
    script = (
        'import sys\nfile = open(sys.argv[1], "a+b", 0)\nfile.write(b"kept")\nprint("ready", flush=True)\nsys.stdin.readline()\n'
        'file.seek(0)\nassert file.read() == b"kept"\nprint("verified", flush=True)\nsys.exit(42)\n'
    )
    path = tmp_path / "one" / "two" / "file"
    path.parent.mkdir(parents=True)
    captured = capture([sys.executable, "-c", script, path], tmp_path)
    captured.kill()
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    revived = revive(captured.repository, captured.commit, files="rollback")
    assert revived.finish() == ("verified\n", 42)
    assert path.read_bytes() == b"kept"
    captured.repository.close()


def test_a_file_that_has_only_another_name_elsewhere_comes_back_as_a_copy(tmp_path: Path) -> None:
    script = (
        'import os, sys\nfile = open("file", "w+b", 0)\nfile.write(b"kept")\nos.mkdir("other")\nos.link("file", "other/file")\nos.unlink("file")\n'
        'print("ready", flush=True)\nsys.stdin.readline()\nfile.seek(0)\nassert file.read() == b"kept"\n'
        'print("verified", flush=True)\nsys.exit(42)\n'
    )
    captured = capture([sys.executable, "-c", script], tmp_path)
    captured.kill()
    assert revive(captured.repository, captured.commit).finish() == ("verified\n", 42)
    assert (tmp_path / "other" / "file").read_bytes() == b"kept"
    captured.repository.close()


def test_a_restored_program_with_a_copy_can_be_captured_and_restored_again(captured: Captured, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).unlink()
    first = revive(captured.repository, captured.commit)
    with Recorder(captured.repository, first.restored.pid, Options(scratch=tmp_path, tree=True)) as recorder:
        commit = recorder.capture().commit
    first.close()
    assert present(tmp_path) == {}
    assert revive(captured.repository, commit).finish(b"same\n") == ("verified\n", 42)


def test_a_program_whose_files_were_brought_back_can_be_captured_and_restored_again(captured: Captured, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"other")
    first = revive(captured.repository, captured.commit, files="rollback")
    with Recorder(captured.repository, first.restored.pid, Options(scratch=tmp_path, tree=True)) as recorder:
        commit = recorder.capture().commit
    first.close()
    second = revive(captured.repository, commit, files="fail")
    assert second.finish(b"same\n") == ("verified\n", 42)
    assert present(tmp_path)["log"] == LATER["log"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_restore_that_fails_leaves_all_files_as_they_are(change: str, captured: Captured, tmp_path: Path) -> None:
    """It fails when they have been brought back already."""
    for name in NAMES:
        CHANGES[change](tmp_path / name)
    if change == "grown":
        os.link(tmp_path / "file", tmp_path / "second")
    now = present(tmp_path)
    with pytest.raises(RestoreError, match="there is no memory"):
        revive(captured.repository, captured.commit, files="rollback", pokes={0x10: b"x"})
    assert present(tmp_path) == now


def test_on_a_file_system_that_cannot_exchange_names(captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(old: str, new: str, directory: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    for name in NAMES:
        CHANGES["written"](tmp_path / name)
    now = present(tmp_path)
    monkeypatch.setattr(naming, "exchange", cannot)
    monkeypatch.setattr(naming, "rename_to_new", cannot)
    with pytest.raises(RestoreError, match="there is no memory"):
        revive(captured.repository, captured.commit, files="rollback", pokes={0x10: b"x"})
    assert present(tmp_path) == now
    revived = revive(captured.repository, captured.commit, files="rollback")
    assert revived.finish(b"same\n") == ("verified\n", 42)
    after = present(tmp_path)
    assert {name: after[name] for name in NAMES} == LATER
    assert sorted(after[name] for name in after.keys() - set(NAMES)) == sorted(now.values())


DATABASE = """
import sqlite3, sys
database = sqlite3.connect("data", isolation_level=None)
database.execute("PRAGMA cache_size = 10")  # so that pages are spilled into the file
database.execute("PRAGMA journal_mode = " + sys.argv[1])
database.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT)")
database.executemany("INSERT INTO numbers VALUES (?, ?)", ((number, "x" * 500) for number in range(100)))
database.execute("BEGIN IMMEDIATE")
database.execute("DELETE FROM numbers WHERE number < 50")
database.executemany("INSERT INTO numbers VALUES (?, ?)", ((number, "y" * 500) for number in range(100, 400)))
print("ready", flush=True)
sys.stdin.readline()
database.execute("INSERT INTO numbers VALUES (1000, 'after')")
database.execute("COMMIT")
assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
assert database.execute("SELECT count(*), min(number), max(number) FROM numbers").fetchone() == (351, 50, 1000)
print("verified", flush=True)
sys.exit(42)
"""


@pytest.mark.parametrize("journal", ["DELETE", "TRUNCATE", "WAL"])
def test_a_database_in_a_transaction_is_brought_back_with_its_journal(journal: str, tmp_path: Path) -> None:
    """Others have rolled the transaction back meanwhile, and made one of their own."""
    captured = capture([sys.executable, "-c", DATABASE, journal], tmp_path)
    captured.kill()
    other = sqlite3.connect(tmp_path / "data")
    assert other.execute("SELECT count(*) FROM numbers").fetchone() == (100,)
    other.execute("UPDATE numbers SET text = 'of another'")
    other.commit()
    other.close()
    revived = revive(captured.repository, captured.commit, files="rollback")
    assert revived.finish() == ("verified\n", 42)
    mine = sqlite3.connect(tmp_path / "data")
    assert mine.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert mine.execute("SELECT count(*), min(number), max(number) FROM numbers").fetchone() == (351, 50, 1000)
    mine.close()
    (kept,) = (path for path in tmp_path.iterdir() if path.name.startswith("data.before-rollback."))
    theirs = sqlite3.connect(kept)
    assert theirs.execute("SELECT count(*) FROM numbers WHERE text = 'of another'").fetchone() == (100,)
    theirs.close()
    captured.repository.close()


# Files whose content is not in the image


@pytest.fixture
def without(program: Path, tmp_path: Path) -> Iterator[Captured]:
    """The program, captured without contents."""
    (tmp_path / "config").write_bytes(CAPTURED["config"])
    found = capture([program], tmp_path)
    with Recorder(found.repository, found.pid, Options(scratch=tmp_path, tree=True, file_content=0)) as recorder:
        commit = recorder.capture().commit
    found.kill()
    yield replace(found, commit=commit)
    found.repository.close()


def test_what_was_appended_is_cut_off_and_kept(without: Captured, tmp_path: Path) -> None:
    for name in ("file", "log", "config"):
        CHANGES["grown"](tmp_path / name)
    revived = revive(without.repository, without.commit, files="rollback")
    assert revived.finish(b"other\n") == ("verified\n", 42)
    files = present(tmp_path)
    for name in ("file", "log"):
        assert files[name] == LATER[name]
        (kept,) = (other for other in files if other.startswith(f"{name}.cut-off-by-rollback."))
        assert files[kept] == b"meanwhile"
    assert files["config"] == b"settings\nmeanwhile", "it is only read"
    assert any("it is only read, and stays as it is" in note for note in revived.restored.notes)


@pytest.mark.parametrize("change", ["truncated", "replaced", "written", "gone"])
def test_what_cannot_be_brought_back_is_refused(change: str, without: Captured, tmp_path: Path) -> None:
    CHANGES["grown"](tmp_path / "log")
    CHANGES[change](tmp_path / "file")
    now = present(tmp_path)
    with pytest.raises(RestoreError, match="the image does not hold its content"):
        revive(without.repository, without.commit, files="rollback")
    assert present(tmp_path) == now


# Hostile images


def with_contents(snapshot: Snapshot, **changes: str | None) -> Snapshot:
    """The image with another record of `log`, in contents and in files."""
    process = snapshot.processes[0]

    def altered(record: Record) -> Record:
        if not (record.get("path") or "").endswith("/log"):
            return record
        fields = {**record.fields, **{key: value for key, value in changes.items() if key in record.fields}}
        return Record(record.kind, {key: value for key, value in fields.items() if value is not None})

    state = {name: tuple(map(altered, records)) for name, records in process.state.items()}
    return replace(snapshot, processes=(replace(process, state=state),))


def refuse(snapshot: Snapshot, error: type[VcsimgError], text: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        with pytest.raises(error, match=text):
            restore(snapshot, RestoreOptions(standard=(null, null, null), files="rollback")).space.close()
    finally:
        os.close(null)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"path": "/tmp/../etc/log"}, HostileImage, "no absolute path"),
        ({"path": "log"}, HostileImage, "no absolute path"),
        ({"path": "/etc/lo\0g"}, HostileImage, "no absolute path"),
        ({"size": "9"}, HostileImage, "7 bytes are stored of a file of 9"),
        ({"size": "-1"}, HostileImage, "size"),
        ({"size": str(1 << 62)}, HostileImage, "size"),
        ({"sha256": "../../../../etc/passwd"}, HostileImage, "SHA-256"),
        ({"sha256": "00" * 32}, RestoreError, "does not hold its content"),
        ({"in_memory": "1"}, HostileImage, "no mapping has it"),
    ],
)
def test_records_that_lie_are_refused(
    changes: dict[str, str], error: type[VcsimgError], text: str, captured: Captured, tmp_path: Path
) -> None:
    for name in ("file", "log", "map"):
        CHANGES["written"](tmp_path / name)
    now = present(tmp_path)
    refuse(with_contents(captured.repository.load(captured.commit), **changes), error, text)
    assert present(tmp_path) == now


def test_a_content_that_is_damaged_is_refused(captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vcsimg.store import source

    unpack: Callable[..., bytes] = source.unpack_frame
    CHANGES["gone"](tmp_path / "log")
    CHANGES["gone"](tmp_path / "file")
    monkeypatch.setattr(source, "unpack_frame", lambda frame, size, where: unpack(frame, size + 1, where))
    with pytest.raises((DamagedImage, HostileImage)):
        revive(captured.repository, captured.commit, files="rollback")
    assert present(tmp_path).keys() == {"config", "map"}


def test_no_symbolic_link_is_followed(program: Path, tmp_path: Path) -> None:
    """Neither in the place of the file nor on the way to it."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    captured = start(program, work)
    victim = elsewhere / "victim"
    victim.write_bytes(b"of somebody else")
    (work / "log").unlink()
    (work / "log").symlink_to(victim)
    with pytest.raises(RestoreError, match="something else at its path"):
        revive(captured.repository, captured.commit, files="rollback")
    captured.repository.close()
    work.rename(tmp_path / "moved")
    work.symlink_to(elsewhere)
    (elsewhere / "log").write_bytes(b"of somebody else")
    repository = tmp_path / "moved" / captured.repository.path.relative_to(work)
    from vcsimg.store import Repository

    with Repository.open(repository) as moved, pytest.raises(RestoreError, match="a folder on its path is a symbolic link now"):
        revive(moved, captured.commit, files="rollback")
    assert present(elsewhere) == {"victim": b"of somebody else", "log": b"of somebody else"}


def test_no_more_permissions_are_given_than_those_of_plain_files(captured: Captured, tmp_path: Path) -> None:
    (tmp_path / "log").unlink()
    snapshot = with_contents(captured.repository.load(captured.commit), mode="0o106777", uid="0")
    null = os.open(os.devnull, os.O_RDWR)
    restored = restore(snapshot, RestoreOptions(standard=(null, null, null), files="rollback"))
    restored.space.close()
    os.close(null)
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o777


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_where_no_file_may_be_made_it_is_refused(captured: Captured, tmp_path: Path) -> None:
    CHANGES["written"](tmp_path / "file")
    now = present(tmp_path)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RestoreError, match="it cannot be brought back: Permission denied") as caught:
            revive(captured.repository, captured.commit, files="rollback")
    finally:
        tmp_path.chmod(0o755)
    assert caught.value.option == "--files keep"
    assert present(tmp_path) == now
