"""One process per folder: a lock with host and process id, which a killed process does not leave behind for good.

The lock is a file that only one process can create. While its process lives, it writes a number into it every few
seconds. Where that process is known to have ended, as it is on the same machine, the lock is taken over at once; where
nothing is known of it, as on another machine, once the number has not changed for a minute. No clocks are compared, so
that they need not agree.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

LOCK = "run.lock"
"""The lock in the folder of a run."""

BEAT_SECONDS = 10.0
"""Seconds between signs of life."""

WATCH_SECONDS = 60.0
"""Seconds without a sign of life after which a process that cannot be asked is taken for dead."""

SETTLE_SECONDS = 0.3
"""Seconds after which a lock that was taken over is looked at again: another process may have done the same."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder.

    Args:
        host: name of its machine.
        pid: its process id there.
        token: of this holding alone.
        machine: identity of the running system and its process ids; empty where unknown.
        started: when the process started, as the system counts; empty where unknown.
        since: when it took the folder, for people.
        beat: number of its signs of life.
    """

    host: str
    pid: int
    token: str
    machine: str = ""
    started: str = ""
    since: str = ""
    beat: int = 0

    @classmethod
    def of_this_process(cls) -> Holder:
        """Describe this process."""
        pid = os.getpid()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), pid, uuid.uuid4().hex, _read_machine(), _read_start(pid), since)

    def is_alive(self) -> bool | None:
        """Tell whether the process lives; None where it cannot be known from here."""
        if not self.machine or self.machine != _read_machine():
            return None
        started = _read_start(self.pid)
        if started:
            return started == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # of another user, whose processes are hidden
            return None
        return False


@contextmanager
def hold_folder(folder: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder, and make it where there is none; of several processes that torchrun starts, the first holds it.

    Args:
        folder: of a run.
        say: hears of waiting, and of a lock that was left behind.

    Raises:
        ValueError: another process holds it, or the lock cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = folder / LOCK
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = _take(path, say or (lambda _line: None))
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, holder, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if _is_own(path, holder):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # There is something in it, as there should be.
            for one in made:
                one.rmdir()


def _take(path: Path, say: Callable[[str], None]) -> Holder:
    own = Holder.of_this_process()
    while not _create(path, own):
        other = _read(path)
        if other is None:
            continue  # removed just now
        if _is_left_behind(path, other, say) and _take_over(path, other, own):
            say(f"{path}: {_name(other)} has ended without removing it; the folder is taken over")
            break
        if (present := _read(path)) is not None:
            raise _refusal(path, present)
    return own


def _create(path: Path, holder: Holder) -> bool:
    """Create the lock; False where there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(_to_text(holder))
    return True


def _take_over(path: Path, other: Holder, own: Holder) -> bool:
    """Put this process in the place of one that has ended; False where another was faster."""
    mine = path.with_name(f"{path.name}.{own.token}")
    mine.write_text(_to_text(own), encoding="utf-8")
    try:
        if _read(path) != other:
            return False
        os.replace(mine, path)
    finally:
        mine.unlink(missing_ok=True)
    time.sleep(SETTLE_SECONDS)
    return _is_own(path, own)


def _is_left_behind(path: Path, other: Holder, say: Callable[[str], None]) -> bool:
    """Tell whether the process that holds a folder has ended, by asking the system or by watching for signs of life."""
    alive = other.is_alive()
    if alive is not None:
        return not alive
    say(f"{path}: {_name(other)} holds the folder; seeing for {WATCH_SECONDS:.0f} s whether it lives")
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        if _read(path) != other:
            return False
    return True


def _refusal(path: Path, other: Holder) -> ValueError:
    since = f", since {other.since}" if other.since else ""
    return ValueError(
        f"{path.parent}: {_name(other)} works here{since}: wait for it, end it, or give another folder; if it no "
        f"longer runs, remove {path}"
    )


def _name(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host}" if holder.token else "a process that is not named"


def _beat(path: Path, holder: Holder, ended: threading.Event) -> None:
    """Write signs of life, as long as the lock is this process's own."""
    beat = 0
    while not ended.wait(BEAT_SECONDS):
        beat += 1
        # A disk that is full or away for a while is no reason to end training.
        with suppress(OSError):
            if not _is_own(path, holder):
                return
            # In place: the text never gets shorter, and half of a new one is a sign of life too.
            with path.open("r+", encoding="utf-8") as file:
                file.write(_to_text(replace(holder, beat=beat)))


def _is_own(path: Path, holder: Holder) -> bool:
    other = _read(path)
    return other is not None and other.token == holder.token


def _to_text(holder: Holder) -> str:
    return json.dumps(asdict(holder)) + "\n"


def _read(path: Path) -> Holder | None:
    """Read a lock; None where there is none. One that cannot be read, as it is not yet written, has no name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        known = {one.name: content[one.name] for one in fields(Holder) if one.name in content}
        return Holder(**known) if isinstance(known.get("pid"), int) else Holder("", 0, "")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        return Holder("", 0, "")


def _read_machine() -> str:
    """Identify the running system and its name space of process ids, which containers have of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # macOS and Windows have no such files.
        return ""


def _read_start(pid: int) -> str:
    """Read when a process started; empty where there is none, or where this process must not know."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name before it, in parentheses, may hold spaces. A zombie has ended, and waits for its parent.
    values = status.rpartition(")")[2].split()
    return "" if values[:1] == ["Z"] or len(values) < 20 else values[19]
