"""Children start, are watched, and end, whatever happens to whom."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from serving.child import ChildSpec, last_meaningful, status_words
from serving.errors import EngineError
from serving.supervisor import Event, EventKind, Supervisor

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
FAMILY = (
    "import subprocess, sys, time;"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True);"
    "time.sleep(60)"
)


def child(tmp_path: Path, code: str, **more) -> ChildSpec:
    """A child that runs a piece of Python."""
    return ChildSpec(name="it", argv=(sys.executable, "-c", code), log_path=tmp_path / "it.log", **more)


def says(path: Path, word: str):
    """Ready once the log has this word."""

    async def ready() -> bool:
        return word in path.read_text()  # noqa: ASYNC240 - a tiny file

    return ready


def gone(pid: int) -> bool:
    """An ended process whose parent has not asked for its status yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(condition, seconds: float = 10.0) -> None:
    """Wait for something that a process does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.02)


async def test_a_started_child_is_known_by_its_pid_and_gone_after_the_supervisor(tmp_path):
    """Leaving the supervisor ends every child."""
    async with Supervisor() as supervisor:
        pid = await supervisor.start(child(tmp_path, SLEEP))
        assert {"it": pid} == supervisor.pids()
    assert gone(pid)
    assert supervisor.pids() == {}


async def test_start_waits_until_the_child_is_ready(tmp_path):
    """`start` returns when the ready check says yes, not before."""
    code = "import time; time.sleep(0.3); print('ready', flush=True); time.sleep(60)"
    async with Supervisor() as supervisor:
        await supervisor.start(child(tmp_path, code, ready=says(tmp_path / "it.log", "ready")))
        assert "ready" in (tmp_path / "it.log").read_text()


async def test_a_child_that_dies_before_it_is_ready_is_one_line_with_the_mend(tmp_path):
    """The error names the exit status, the log's last meaningful line, the mend and the log."""
    code = "raise OSError(98, 'Address already in use')"
    async with Supervisor() as supervisor:
        with pytest.raises(EngineError) as caught:
            await supervisor.start(child(tmp_path, code, ready=says(tmp_path / "it.log", "never")))
        assert supervisor.pids() == {}
    message = str(caught.value)
    assert "\n" not in message
    assert "it did not come up (exit status 1): OSError: [Errno 98] Address already in use" in message
    assert "port is taken" in message
    assert str(tmp_path / "it.log") in message


async def test_a_child_that_never_gets_ready_is_stopped_after_the_time_limit(tmp_path):
    """The time limit ends in one line, and in no process."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        with pytest.raises(EngineError, match=r"it was not ready within 0.5 s: hello; read its log"):
            await supervisor.start(
                child(
                    tmp_path,
                    f"print('hello', flush=True); {SLEEP}",
                    ready=says(tmp_path / "it.log", "never"),
                    ready_s=0.5,
                )
            )
        assert supervisor.pids() == {}
    assert gone(int(events[0].detail.removeprefix("pid ")))


async def test_only_this_runs_output_explains_a_failure(tmp_path):
    """A log that an earlier run left does not explain today's failure."""
    (tmp_path / "it.log").write_text("OSError: [Errno 98] Address already in use\n")
    async with Supervisor() as supervisor:
        with pytest.raises(EngineError, match="it said nothing; read its log"):
            await supervisor.start(child(tmp_path, "raise SystemExit(3)", ready=says(tmp_path / "it.log", "never")))


async def test_an_end_is_noticed_while_readiness_hangs(tmp_path):
    """Another process on the child's port that accepts and keeps silent must not hide the child's end."""

    async def silent() -> bool:
        await asyncio.Event().wait()
        return True

    async with Supervisor() as supervisor, asyncio.timeout(5):
        with pytest.raises(EngineError, match="it did not come up \\(exit status 3\\)"):
            await supervisor.start(child(tmp_path, "raise SystemExit(3)", ready=silent))


async def test_a_program_that_is_not_there_is_one_line(tmp_path):
    """A missing program is an error of ours, not a traceback."""
    spec = ChildSpec(name="it", argv=("/nowhere/at/all",), log_path=tmp_path / "it.log")
    async with Supervisor() as supervisor:
        with pytest.raises(EngineError, match="it cannot be started: No such file or directory: /nowhere/at/all"):
            await supervisor.start(spec)


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    """SIGTERM, the grace, SIGKILL."""
    async with Supervisor() as supervisor:
        ready = says(tmp_path / "it.log", "up")
        pid = await supervisor.start(child(tmp_path, STUBBORN, ready=ready, grace_s=0.3))
        since = time.monotonic()
        await supervisor.stop("it")
        assert 0.3 <= time.monotonic() - since < 3
    assert gone(pid)


async def test_the_whole_group_ends_even_when_its_first_process_was_killed(tmp_path):
    """A child's own children do not outlive it."""
    log = tmp_path / "it.log"
    async with Supervisor() as supervisor:
        pid = await supervisor.start(child(tmp_path, FAMILY, ready=says(log, "\n")))
        grandchild = int(log.read_text())
        os.kill(pid, signal.SIGKILL)
        await until(lambda: gone(grandchild))


async def test_a_killed_child_is_restarted_and_its_new_pid_known(tmp_path):
    """With restart, kill -9 gives another process; the events tell the story."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        pid = await supervisor.start(child(tmp_path, SLEEP, restart=True))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.restarts("it") == 1 and supervisor.pids().get("it", pid) != pid)
    kinds = [event.kind for event in events]
    story = [EventKind.STARTED, EventKind.READY, EventKind.ENDED, EventKind.RESTARTING, EventKind.STARTED]
    assert story == kinds[:5]
    assert "killed by SIGKILL" in events[2].detail


async def test_a_killed_child_whose_log_was_deleted_is_restarted_all_the_same(tmp_path):
    """What it said last is lost; that it ended is not."""
    spec = child(tmp_path, SLEEP, restart=True)
    async with Supervisor() as supervisor:
        pid = await supervisor.start(spec)
        spec.log_path.unlink()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.restarts("it") == 1 and supervisor.pids().get("it", pid) != pid)


async def test_a_killed_child_stays_down_unless_it_asked_for_restarts(tmp_path):
    """Without restart the end is told, and nothing is started."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        pid = await supervisor.start(child(tmp_path, SLEEP))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: any(event.kind is EventKind.ENDED for event in events))
        await asyncio.sleep(0.7)
        assert supervisor.pids() == {}
        await supervisor.stop("it")
        await supervisor.start(child(tmp_path, SLEEP))


async def test_stop_all_may_be_called_twice_and_stops_the_last_child_last(tmp_path):
    """The store outlives those that write to it."""
    stopped: list[str] = []
    supervisor = Supervisor(lambda event: stopped.append(event.name) if event.kind is EventKind.STOPPED else None)
    store = ChildSpec("store", (sys.executable, "-c", SLEEP), tmp_path / "store.log", last=True)
    await supervisor.start(store)
    await supervisor.start(child(tmp_path, SLEEP))
    await supervisor.stop_all()
    await supervisor.stop_all()
    assert stopped == ["it", "store"]


async def test_a_name_can_run_only_once(tmp_path):
    """A second child of the same name is refused; the first stays."""
    async with Supervisor() as supervisor:
        pid = await supervisor.start(child(tmp_path, SLEEP))
        with pytest.raises(EngineError, match="it runs already"):
            await supervisor.start(child(tmp_path, SLEEP))
        assert {"it": pid} == supervisor.pids()


async def test_a_cancelled_start_leaves_nothing_running(tmp_path):
    """Ctrl-C while a child comes up ends that child."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        starting = asyncio.ensure_future(
            supervisor.start(child(tmp_path, SLEEP, ready=says(tmp_path / "it.log", "never")))
        )
        await until(lambda: bool(events))
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        assert supervisor.pids() == {}
    assert gone(int(events[0].detail.removeprefix("pid ")))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_children_do_not_outlive_a_supervisor_that_dies(tmp_path, number):
    """The process that supervises is killed, or interrupted: its children and theirs are gone soon after."""
    program = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from serving.supervisor import ChildSpec, Supervisor
        async def main():
            async with Supervisor() as supervisor:
                spec = ChildSpec("it", (sys.executable, "-c", {FAMILY!r}), Path({str(tmp_path / "it.log")!r}))
                print(await supervisor.start(spec), flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """)
    log = tmp_path / "it.log"
    with subprocess.Popen(  # noqa: ASYNC220 - milliseconds
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        await until(lambda: "\n" in log.read_text())
        grandchild = int(log.read_text())
        parent.send_signal(number)
        await until(lambda: gone(pid) and gone(grandchild))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        (["", "  ", "---"], ""),
        (["starting", "ValueError: no such model", "shutting down"], "ValueError: no such model"),
        (
            ["(pid=3) ERROR ValueError: no room", "RuntimeError: it failed. See root cause above."],
            "ValueError: no room",
        ),
        (["ERROR:    [Errno 98] in use", "INFO:     shut down"], "ERROR:    [Errno 98] in use"),
        (["WARNING may give `OSError: [Errno 24] Too many files`", "serving"], "serving"),
        (["starting", "still starting", ""], "still starting"),
    ],
)
def test_the_last_meaningful_line_is_the_last_that_names_an_error(lines, said):
    """Errors before chatter, chatter before nothing."""
    assert said == last_meaningful(lines)


@pytest.mark.parametrize(
    ("status", "words"), [(3, "exit status 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_exit_status_is_said_in_words(status, words):
    """A negative status is a signal."""
    assert words == status_words(status)
