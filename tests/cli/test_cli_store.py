"""gc, prune, clone, push, fetch, bundle, and encryption: against real servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_cli_terminal import Terminal
from tests.conftest import Target, compile_target
from tests.servers import SSH_SERVERS, git_daemon, http_server, ssh_command, ssh_server

Start = Callable[..., Target]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A repository with six captures of a program that has ended."""
    cli = Cli(tmp_path_factory.mktemp("recorded"))
    cli("init", cli.repo)
    target = Target(compile_target("demo_exchange"), "60")
    try:
        target.line()
        cli("record", target.pid, "--every", "100ms", "--count", "6", "--no-files")
    finally:
        target.end()
    return cli


@pytest.fixture
def history(recorded: Cli, tmp_path: Path) -> Cli:
    """A copy of it, to do with as one likes."""
    made = Cli(tmp_path)
    shutil.copytree(recorded.repo, made.repo)
    return made


def ids(cli: Cli, repo: Path | None = None) -> list[str]:
    return [item["commit"] for item in cli.json("log", "--repo", repo or cli.repo)]


def raw(cli: Cli, revision: str, repo: Path, folder: Path, **options: object) -> dict[str, bytes]:
    """The files of a capture, as `checkout --raw` writes them."""
    cli("checkout", revision, "--raw", folder, "--repo", repo, **options)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Upkeep


def test_gc_drops_what_no_branch_leads_to(history: Cli) -> None:
    branch = history.git("symbolic-ref", "--short", "HEAD").strip()
    commits = ids(history)
    history.git("update-ref", f"refs/heads/{branch}", commits[3])
    told = history.json("gc")
    assert told["freed"] == told["bytes_before"] - told["bytes_after"] > 0
    assert told["packs_after"] == 1
    assert ids(history) == commits[3:]
    assert "unknown revision" in history("show", commits[0], status=1).stderr
    assert " freed, " in history("gc").stdout
    assert history("fsck").stdout.startswith("3 captures checked, 0 damaged")


def test_gc_while_a_recording_goes_on(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", "60")
    target.line()
    recorder = cli.start("record", target.pid, "--every", "0", "--no-files")
    assert recorder.stdout is not None
    for _ in range(3):
        recorder.stdout.readline()
        cli("gc")
    recorder.stdout.readline()
    recorder.terminate()
    recorder.communicate()
    assert cli("fsck").stdout.endswith(" 0 damaged, 0 findings\n")


def test_prune_keeps_what_it_is_told_to_and_says_what_it_freed(history: Cli) -> None:
    commits = ids(history)
    history.git("tag", "before-the-crash", commits[4])
    subjects = [item["subject"] for item in history.json("log")]
    assert history("prune", "--keep-last", "2", "--dry-run").stdout == "3 captures would go, 3 kept\n"
    assert ids(history) == commits
    told = history.json("prune", "--keep-last", "2", "--keep-tagged")
    assert (told["kept"], told["removed"]) == (3, 3)
    assert told["freed"] == told["bytes_before"] - told["bytes_after"] > 0
    assert [item["subject"] for item in history.json("log")] == [subjects[0], subjects[1], subjects[4]]
    # Two, if they lie on both sides of the full hour.
    left = history.json("prune", "--keep-every", "1h", "--no-keep-tagged")["kept"]
    assert left in (1, 2)
    assert len(ids(history)) == left
    assert history("prune", "--keep-last", "1").stdout.startswith(f"{left - 1} captures gone, 1 kept; ")
    assert history("fsck").stdout == "1 capture checked, 0 damaged, 0 findings\n"


def test_prune_must_be_told_what_to_keep(history: Cli) -> None:
    assert "--keep-every" in history("prune", status=2).stderr
    assert len(ids(history)) == 6


def test_a_branch_that_is_being_recorded_is_not_pruned(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", "60")
    target.line()
    recorder = cli.start("record", target.pid, "--on-demand", "--no-files")
    assert recorder.stdout is not None
    recorder.stdout.readline()
    assert f"process {recorder.pid} is already writing" in cli("prune", "--keep-last", "1", status=1).stderr
    recorder.terminate()
    recorder.communicate()


# Other copies


@pytest.fixture
def url(history: Cli, request: pytest.FixtureRequest) -> Iterator[str]:
    """The repository over the transport that the parameter names."""
    if request.param == "file":
        yield str(history.repo)
        return
    with (http_server if request.param == "http" else git_daemon)(history.repo) as served:
        yield served


@pytest.mark.parametrize("url", ["file", "http", "git"], indirect=True)
def test_clone_and_fetch(history: Cli, url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    branch = history.git("symbolic-ref", "--short", "HEAD").strip()
    commits = ids(history)
    history.git("update-ref", f"refs/heads/{branch}", commits[2])
    assert history("clone", url, copy).stdout == f"Cloned 1 branch to {copy}\n"
    assert (copy.stat().st_mode & 0o777) == 0o700
    assert ids(history, copy) == commits[2:]
    assert history("fetch", "--repo", copy).stdout == "nothing new\n"
    history.git("update-ref", f"refs/heads/{branch}", commits[0])
    history.git("update-ref", "refs/heads/other", commits[5])
    assert history("fetch", "--repo", copy).stdout.splitlines() == [
        f"{branch}  {commits[2][:12]}  {commits[0][:12]}",
        f"other  new  {commits[5][:12]}",
    ]
    assert history.json("fetch", "--repo", copy) == []
    assert raw(history, commits[0], copy, tmp_path / "a") == raw(history, commits[0], history.repo, tmp_path / "b")


@pytest.mark.parametrize("url", ["file", "http"], indirect=True)
def test_a_light_clone_fetches_with_checkout(history: Cli, url: str, tmp_path: Path) -> None:
    """The log at once, contents on demand; what was fetched stays, when the server is gone."""
    copy = tmp_path / "copy"
    history("clone", "--light", url, copy)
    commits = ids(history)
    assert ids(history, copy) == commits
    assert "6 not, since their contents are not here" in history("fsck", "--repo", copy).stdout
    wanted = raw(history, commits[1], history.repo, tmp_path / "a")
    assert raw(history, commits[1], copy, tmp_path / "b") == wanted
    assert history("show", f"{commits[4]}:format", "--repo", copy).stdout == "vcsimg 4\n"
    history.git("config", "uploadpack.allowFilter", "false")
    hidden = history.repo.rename(tmp_path / "away")
    assert raw(history, commits[1], copy, tmp_path / "c") == wanted
    said = history("checkout", commits[5], "--raw", tmp_path / "d", "--repo", copy, status=1).stderr
    assert "git fetch failed" in said
    hidden.rename(history.repo)


def test_a_shallow_clone(history: Cli, tmp_path: Path) -> None:
    history("clone", "--depth", "1", history.repo, tmp_path / "copy")
    (only,) = ids(history, tmp_path / "copy")
    assert raw(history, only, tmp_path / "copy", tmp_path / "a") == raw(history, only, history.repo, tmp_path / "b")


def test_a_push_to_a_new_place_must_be_confirmed(history: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    history("init", there)
    done = history("push", there, status=1)
    assert f"never pushed to file://{there}" in done.stderr
    assert "--yes" in done.stderr
    assert history("log", "--all", "--repo", there).stdout == ""
    assert history("push", there, "--yes").stdout == f"1 branch pushed to file://{there}\n"
    assert ids(history, there) == ids(history)
    branch = history.git("symbolic-ref", "--short", "HEAD").strip()
    told = history.json("push", there, branch)
    assert told == {"url": f"file://{there}", "branches": {branch: ids(history)[0]}}


def test_on_a_terminal_a_push_asks(history: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    history("init", there)
    refused = Terminal(history, "push", there)
    refused.read_until(r"with every secret in it. May file://\S+ have them\? \[y/N\]")
    refused.type("n\n")
    assert refused.end() == 130
    allowed = Terminal(history, "push", there)
    allowed.read_until(r"\[y/N\]")
    allowed.type("y\n")
    allowed.read_until("1 branch pushed")
    assert allowed.end() == 0
    assert ids(history, there) == ids(history)


def test_on_a_terminal_it_is_shown_how_far_a_transfer_is(history: Cli, tmp_path: Path) -> None:
    terminal = Terminal(history, "clone", f"file://{history.repo}", tmp_path / "copy")
    terminal.read_until("Receiving objects")
    terminal.read_until("Cloned 1 branch to")
    assert terminal.end() == 0
    for command in (("gc",), ("prune", "--keep-last", "3")):
        terminal = Terminal(history, *command)
        terminal.read_until(" freed, ")
        assert terminal.end() == 0
    assert len(ids(history)) == 3


def test_a_push_over_http(history: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    history("init", there)
    with http_server(there) as url:
        history("push", "--yes", url)
    assert ids(history, there) == ids(history)


def _over_ssh(history: Cli, client: Cli, folder: Path, url: str, keys: Path) -> None:
    """Clone light, look at a capture, clone whole, and push a branch: all as the user of `client`."""
    over = {"environment": {"GIT_SSH_COMMAND": ssh_command(keys)}}
    commits = ids(history)
    client("clone", "--light", url, folder / "light", **over)
    wanted = raw(history, commits[2], history.repo, history.folder / "wanted")
    assert raw(client, commits[2], folder / "light", folder / "raw", **over) == wanted
    client("clone", url, folder / "copy", **over)
    assert ids(client, folder / "copy") == commits
    subprocess.run([*client.prefix, "git", "-C", folder / "copy", "update-ref", "refs/heads/mine", commits[3]], check=True)
    client("push", "origin", "mine", "--yes", "--repo", folder / "copy", **over)
    assert history.git("rev-parse", "mine").strip() == commits[3]
    assert (
        "git fetch failed" in client("fetch", url.replace("/repo", "/nothing"), "--repo", folder / "copy", status=1, **over).stderr
    )


@pytest.mark.parametrize("server", SSH_SERVERS)
def test_over_ssh(server: str, history: Cli, tmp_path: Path) -> None:
    with ssh_server(server, history.repo, tmp_path / "ssh") as (url, keys):
        _over_ssh(history, history, tmp_path, url, keys)


@pytest.mark.parametrize("server", SSH_SERVERS[-1:])
def test_over_ssh_as_an_ordinary_user(server: str, history: Cli, cli_of_nobody: Cli, tmp_path: Path) -> None:
    """The client is an ordinary user, and logs in on the server as another."""
    with ssh_server(server, history.repo, tmp_path / "ssh") as (url, keys):
        mine = cli_of_nobody.folder / "keys"
        mine.mkdir()
        for name in ("id", "known_hosts"):
            shutil.copy(keys / name, mine / name)
        for path in (mine, *mine.iterdir()):
            os.chown(path, 65534, 65534)
        _over_ssh(history, cli_of_nobody, cli_of_nobody.folder, url, mine)


def test_a_bundle_is_a_repository_in_one_file(history: Cli, tmp_path: Path) -> None:
    file = tmp_path / "all.bundle"
    assert history("bundle", file).stdout.startswith(f"{file}  ")
    assert file.stat().st_mode & 0o777 == 0o600
    history("clone", file, tmp_path / "copy")
    assert ids(history, tmp_path / "copy") == ids(history)
    assert "the file exists" in history("bundle", file, status=1).stderr
    branch = history.git("symbolic-ref", "--short", "HEAD").strip()
    told = history.json("bundle", "--force", file, f"{branch}~2..{branch}")
    assert told["bytes"] == file.stat().st_size
    history("fetch", file, "--repo", tmp_path / "copy")


def test_what_cannot_be_cloned_leaves_nothing_behind(history: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    error = history("clone", tmp_path / "nothing", copy, status=1).stderr
    assert "git fetch failed" in error
    assert f"There is no git repository at file://{tmp_path}/nothing." in error
    source = tmp_path / "source"
    subprocess.run(["git", "init", "-q", source], check=True)
    words = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(["git", "-C", source, *words], check=True)
    assert "no repository of captures" in history("clone", source, copy, status=1).stderr
    assert not copy.exists()
    copy.mkdir()
    history("clone", tmp_path / "nothing", copy, status=1)
    assert list(copy.iterdir()) == []
    assert "there is a repository already" in history("clone", tmp_path / "nothing", history.repo, status=1).stderr
    assert len(ids(history)) == 6


def test_a_remote_that_nobody_named(history: Cli) -> None:
    for command in (("fetch",), ("push", "--yes")):
        assert "remote add origin URL" in history(*command, status=1).stderr
    assert "vcsimg log --all" in history("push", "--yes", history.repo, "no-such-branch", status=1).stderr


def test_a_branch_that_went_another_way_is_not_overwritten(history: Cli, tmp_path: Path) -> None:
    history("clone", history.repo, tmp_path / "copy")
    history("prune", "--keep-last", "2")
    assert "went another way" in history("fetch", "--repo", tmp_path / "copy", status=1).stderr
    assert len(ids(history, tmp_path / "copy")) == 6
    assert "went another way" in history("push", "--yes", "--repo", tmp_path / "copy", status=1).stderr


# Encryption


def test_what_is_pushed_from_an_encrypted_repository_cannot_be_read_by_its_host(cli: Cli, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    sealed, host, key = tmp_path / "sealed", tmp_path / "host", tmp_path / "key"
    assert f"Its key is in {key}" in cli("init", sealed, "--key-file", key).stdout
    assert key.stat().st_mode & 0o777 == 0o600
    target = start("demo_exchange", "60")
    target.line()
    cli("capture", target.pid, "--no-files", "--repo", sealed)
    cli("init", host)
    cli("push", "--yes", host, "--repo", sealed)
    key.rename(tmp_path / "elsewhere")
    assert "the key is not here" in cli("show", "--repo", host, status=1).stderr
    assert "of 1 only the objects, since the key is not here" in cli("fsck", "--repo", host).stdout
    cli("gc", "--repo", host)
    copy = tmp_path / "copy"
    (tmp_path / "wrong").write_text("ab" * 64 + "\n")
    cli("clone", host, copy)
    assert len(ids(cli, copy)) == 1
    # A copy knows that it is encrypted: nothing can be put into it in the clear.
    assert "the key is not here" in cli("capture", target.pid, "--no-files", "--repo", copy, status=1).stderr
    with_key = tmp_path / "with-key"
    cli("clone", host, with_key, "--key-command", f"cat {tmp_path / 'elsewhere'}")
    assert "demo_exchange" in cli("show", "--repo", with_key).stdout
    assert cli("capture", target.pid, "--no-files", "--repo", with_key).stdout
    assert "another key" in cli("show", "--repo", copy, status=1, environment={"VCSIMG_KEY_FILE": str(tmp_path / "wrong")}).stderr


def test_a_key_that_cannot_be_had_is_named(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    assert "exclude one another" in cli("init", tmp_path / "a", "--key-file", "k", "--key-command", "x", status=2).stderr
    assert "exit 3" in cli("init", tmp_path / "b", "--key-command", "exit 3", status=1).stderr
    assert "not a key" in cli("init", tmp_path / "c", "--key-command", "echo 12", status=1).stderr
    done = cli("clone", cli.repo, tmp_path / "d", "--key-file", tmp_path / "nothing", status=1)
    assert "the key is not here" in done.stderr
    assert not (tmp_path / "d").exists()
