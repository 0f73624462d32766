"""`vcsimg run`, `record`, `snap` and `capture`: what puts captures into a repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.events import EventLog, Tally, as_dict
from vcsimg.cli.live import LiveLine
from vcsimg.cli.options import DURATION, PID, SIGNAL, SIZE, Command, find_repository, json_option, repository_option
from vcsimg.cli.output import Part, count, duration, size, stderr, stdout
from vcsimg.cli.progress import reading
from vcsimg.errors import RepositoryMissing, VcsimgError

if TYPE_CHECKING:
    from vcsimg.capture import Options
    from vcsimg.recording import Recorded, Recorder
    from vcsimg.store import Repository

ENGINES = ("auto", "wp", "cow", "compare")
"""Those of vcsimg.capture.target, which takes a while to import."""

_UNSAVED_SHOWN = 10


def _capture_options(command: Command) -> Command:
    """How captures are made; the command gets `engine`, `exclude`, `file_content`, `files` and `tree`."""
    for option in (
        click.option("--tree", is_flag=True, help="The process and all its descendants, stopped at one instant."),
        click.option(
            "--file-content",
            type=SIZE,
            default="64M",
            show_default=True,
            metavar="LIMIT",
            help="Keep the content of files that are open for writing up to this size, and of small ones that are only read; 0: of none.",
        ),
        click.option(
            "--no-files", "files", flag_value=False, default=True, help="Leave out the contents of files, mapped or open."
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="PATTERN",
            help="Leave out the content of regions whose name matches this shell pattern; may be given again.",
        ),
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="auto",
            show_default=True,
            help="How changed pages are found: write-protection, copy-on-write, comparison.",
        ),
    ):
        command = option(command)
    return command


def _loop_options(command: Command) -> Command:
    """How often; the command gets `every`, `on_demand`, `number` and `events`."""
    for option in (
        click.option("--events", metavar="FILE", help="Append JSON lines that say what happens to a file, or to /dev/fd/N."),
        click.option("--count", "number", type=click.IntRange(min=1), metavar="N", help="End after N captures."),
        click.option("--on-demand", is_flag=True, help="Only one at the beginning, then when `vcsimg snap` asks for one."),
        click.option(
            "--every", type=DURATION, default="1s", show_default=True, help="A capture this often: 500ms, 1s, 2m; 0: always."
        ),
    ):
        command = option(command)
    return command


def _options(
    repository: Repository,
    engine: str,
    exclude: tuple[str, ...],
    files: bool,
    file_content: int,
    tree: bool,
    kill: bool = False,
    once: bool = False,
) -> Options:
    from vcsimg.capture import Options

    return Options(
        scratch=repository.path / "vcsimg",
        engine=engine,
        tree=tree or kill,
        files=files,
        file_content=file_content,
        exclude=exclude,
        kill=kill,
        once=once,
    )


@click.command()
@click.argument("pid", type=PID)
@click.option("-m", "--message", help="The subject of the commit; else one that says what changed.")
@click.option(
    "--kill",
    is_flag=True,
    help="End it and its descendants when the capture is stored. Their TCP connections are not ended: restore --tcp keep goes on with them.",
)
@_capture_options
@repository_option
@json_option("One JSON document: commit, branch, engine, pause, bytes, pages, what could not be saved.")
def capture(
    pid: int,
    message: str | None,
    kill: bool,
    engine: str,
    exclude: tuple[str, ...],
    files: bool,
    file_content: int,
    tree: bool,
    repo: Path | None,
    as_json: bool,
) -> None:
    """Capture a running process once.

    The process goes on as if nothing had happened, unless --kill is given. A second capture of the same process continues its branch.
    """
    from vcsimg.recording import Recorder

    with (
        find_repository(repo) as repository,
        Recorder(repository, pid, _options(repository, engine, exclude, files, file_content, tree, kill, once=True)) as recorder,
        reading(stderr()) as recorder.progress,
    ):
        recorded = recorder.capture(message)
    if as_json:
        stdout().json(as_dict(recorded))
        return
    stdout().line((recorded.commit[:12], "yellow"), "  ", (recorded.branch, "green"), "  ", _facts(recorded))
    _warn_unsaved(recorded)


def _facts(recorded: Recorded) -> str:
    stored = size(recorded.bytes_stored)
    return f"{count(recorded.pages_changed, 'page')} changed, stopped {duration(recorded.pause)}, {stored} stored, engine {recorded.engine}"


def _warn_unsaved(recorded: Recorded) -> None:
    err = stderr()
    for item in recorded.unsaved[:_UNSAVED_SHOWN]:
        err.line(("not saved: ", "yellow"), f"{item['resource']}: {item['reason']}")
    if len(recorded.unsaved) > _UNSAVED_SHOWN:
        err.line(
            ("not saved: ", "yellow"),
            f"{len(recorded.unsaved) - _UNSAVED_SHOWN} more; `vcsimg show {recorded.commit[:12]}` lists them",
        )


@click.command()
@click.argument("pid", type=PID)
@_loop_options
@click.option(
    "--on-signal",
    "signals",
    type=SIGNAL,
    multiple=True,
    default=("USR1",),
    show_default=True,
    metavar="SIGNAL",
    help="A capture when this recorder (not the process) gets this signal; may be given again.",
)
@_capture_options
@repository_option
@json_option("JSON lines that say what happens, on standard output: --events -.")
def record(
    pid: int,
    every: float,
    on_demand: bool,
    number: int | None,
    events: str | None,
    signals: tuple[int, ...],
    engine: str,
    exclude: tuple[str, ...],
    files: bool,
    file_content: int,
    tree: bool,
    repo: Path | None,
    as_json: bool,
) -> int:
    """Follow a running process: a capture at an interval and on demand, until it ends or Ctrl-C.

    On a terminal a status line shows how it goes; in a pipe each capture is a line. The process never notices; whatever happens to the
    recorder, it runs on, and what was captured is safe.
    """
    from vcsimg.recording import Recorder
    from vcsimg.recording.follow import follow

    if as_json and events not in (None, "-"):
        raise click.UsageError("--json and --events exclude one another: --json is --events -.")
    log = EventLog("-" if as_json else events)
    tally = Tally()
    out, err = stdout(), stderr()
    live = LiveLine(err)
    lines = not as_json and events != "-" and not (out.terminal and err.terminal)
    last_error = ""

    def on_capture(recorded: Recorded) -> None:
        nonlocal last_error
        tally.add(recorded)
        last_error = ""
        log.capture(recorded)
        if lines:
            out.line((recorded.commit[:12], "yellow"), "  ", _facts(recorded))
            out.flush()
        live.show(*_status(recorder, recorded, tally))

    def on_error(error: VcsimgError) -> None:
        nonlocal last_error
        tally.failed += 1
        log.error(error)
        if str(error) != last_error:  # once, not every time the interval comes round
            last_error = str(error)
            live.clear()
            err.line(("no capture: ", "red"), str(error))

    with (
        find_repository(repo) as repository,
        Recorder(repository, pid, _options(repository, engine, exclude, files, file_content, tree)) as recorder,
    ):
        recorder.progress = lambda done, total: live.show(f"first capture: {size(done)} of {size(total)} read")
        log.start(recorder)
        if not as_json and events != "-":
            err.line(f"recording {recorder.name} {pid} into branch ", (recorder.branch, "green"), "; Ctrl-C ends it")
            err.flush()
        try:
            ending = follow(
                recorder,
                repository.path,
                every=None if on_demand else every,
                count=number,
                capture_signals=signals,
                on_capture=on_capture,
                on_error=on_error,
            )
        finally:
            live.clear()
    log.end(ending.reason, tally)
    if log.failure is not None:
        err.line(("no events: ", "red"), str(log.failure))
    if not as_json and events != "-":
        why = {"ended": f"{recorder.name} {pid} ended", "count": "done", "stopped": "stopped"}[ending.reason]
        err.line(f"{why}: {tally}")
    return 128 + ending.signal if ending.reason == "stopped" else 0


def _status(recorder: Recorder, recorded: Recorded, tally: Tally) -> list[Part]:
    """What matters most comes first: the end is cut off where the window is narrow."""
    return [
        ("● ", "red"),
        (f"{recorder.name} {recorder.pid}", "bold"),
        f"  {count(tally.captures, 'capture')}  paused {duration(recorded.pause)}, at most {duration(tally.longest)}"
        f"  {size(tally.stored)}  ",
        (recorded.commit[:12], "yellow"),
    ]


@click.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND…")
@_loop_options
@_capture_options
@click.option("-q", "--quiet", is_flag=True, help="No summary at the end.")
@repository_option
def run(
    command: tuple[str, ...],
    every: float,
    on_demand: bool,
    number: int | None,
    events: str | None,
    engine: str,
    exclude: tuple[str, ...],
    files: bool,
    file_content: int,
    tree: bool,
    quiet: bool,
    repo: Path | None,
) -> int:
    """Start a program and record it until it ends.

    Its terminal, its exit status and its signals stay its own: nothing is printed while it runs, then one line on standard error.
    If it cannot be recorded, it runs all the same, and the line says why.
    """
    from vcsimg.recording import leave_as
    from vcsimg.recording.run import run as run_program

    if events == "-":
        raise click.UsageError("Standard output belongs to the program: use --events FILE.")
    log = EventLog(events)
    tally = Tally()
    started: list[Recorder] = []
    errors: list[VcsimgError] = []

    def on_start(recorder: Recorder) -> None:
        started.append(recorder)
        log.start(recorder)

    def on_capture(recorded: Recorded) -> None:
        tally.add(recorded)
        log.capture(recorded)

    def on_error(error: VcsimgError) -> None:
        tally.failed += 1
        errors[:] = [error]
        log.error(error)

    with find_repository(repo) as repository:
        status = run_program(
            repository,
            command,
            _options(repository, engine, exclude, files, file_content, tree),
            every=None if on_demand else every,
            count=number,
            on_start=on_start,
            on_capture=on_capture,
            on_error=on_error,
        )
    log.end("ended", tally, exit_status=status if status >= 0 else 128 - status)
    if not quiet:
        err = stderr()
        who = f"{started[0].name} {started[0].pid} in branch {started[0].branch}" if started else command[0]
        early = ": it ended before the first one" if not tally.captures and not errors else ""
        err.line(f"vcsimg: {tally} of {who}{early}")
        for error in (*errors, *([log.failure] if log.failure is not None else [])):
            err.line(f"vcsimg: {error}")
            if error.remedy:
                err.line(f"  {error.remedy}")
    sys.stdout.flush()
    sys.stderr.flush()
    return leave_as(status)


@click.command()
@click.argument("pid", type=PID, required=False)
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Every recorded process whose current folder is FOLDER or below it.",
)
@click.option("-m", "--message", help="The subject of the commit; else one that says what changed.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; that there is no recorder, or no repository, is no failure.")
@repository_option
@json_option("One JSON document: a list of pid and commit.")
def snap(pid: int | None, folder: Path | None, message: str | None, quiet: bool, repo: Path | None, as_json: bool) -> None:
    """Ask the recorder of a process (vcsimg run, vcsimg record) for a capture now."""
    from vcsimg.recording import recorders, request_capture

    if (pid is None) == (folder is None):
        raise click.UsageError("Give either a PID or --in FOLDER.")
    try:
        with find_repository(repo) as repository:
            path = repository.path
    except RepositoryMissing:
        if quiet:
            return
        raise
    made: list[dict[str, int | str]] = []
    failures: list[VcsimgError] = []
    for each in [pid] if pid is not None else recorders(path, folder):
        try:
            commit = request_capture(path, each, message)
        except VcsimgError as error:
            failures.append(error)
            continue
        if commit is not None:
            made.append({"pid": each, "commit": commit})
    if as_json:
        stdout().json(made)
    elif not quiet:
        for item in made:
            stdout().line((str(item["commit"])[:12], "yellow"), f"  process {item['pid']}")
    if failures:
        raise failures[0]
    if not made and not quiet:
        who = f"process {pid}" if pid is not None else f"any process in {folder}"
        raise VcsimgError(
            f"no recorder follows {who} in {path}",
            remedy="`vcsimg record PID` starts one; `vcsimg capture PID` makes a single capture.",
        )
