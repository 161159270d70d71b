"""Killing the real command at any moment: the same command then gives the bytes of an undisturbed run."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import write_portrait, write_speech
from toy_networks import publish_toys

SECONDS = 1.2

TRACKED_AND_RENDERED = ("prepared/*/observations-*.json", "jobs/*/segment-00001.mp4.json")
"""Moments of a job: the faces are tracked; two of six segments are rendered."""


class Desk:
    """A clip, a voice, toy networks, and the command on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_portrait(folder / "talk.mp4", 30)
        write_speech(folder / "voice.wav", SECONDS, rate=16_000)  # the network's rate: nothing to compile
        publish_toys(folder / "artifacts")

    def start(self, output: str, cache: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "dubstream.runtime.cli", "dub", "talk.mp4", "voice.wav", "-o", output,
            "--artifacts", "artifacts", "--cache", cache, "--segment-seconds", "0.2", "--batch", "2",
            "--threads", "1", "--preset", "ultrafast",
        ]  # fmt: skip
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def start_until(self, output: str, cache: str, milestone: str) -> subprocess.Popen[bytes]:
        """Start, and return as soon as a file matching `milestone` is in the cache."""
        process = self.start(output, cache)
        give_up = time.monotonic() + 120
        while not list((self.folder / cache).glob(milestone)):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < give_up
            time.sleep(0.002)
        return process

    def finish(self, output: str, cache: str) -> str:
        """Run to the end; digest of the output."""
        process = self.start(output, cache)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        return hashlib.sha256((self.folder / output).read_bytes()).hexdigest()

    def parts(self) -> list[str]:
        return [path.name for path in self.folder.glob(".dubstream-*")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def undisturbed(desk: Desk) -> str:
    return desk.finish("undisturbed.mp4", "cache-undisturbed")


@pytest.mark.parametrize("milestone", TRACKED_AND_RENDERED)
def test_kill_9_then_the_same_command(desk: Desk, undisturbed: str, milestone: str) -> None:
    output, cache = f"killed-{len(milestone)}.mp4", f"cache-{len(milestone)}"
    process = desk.start_until(output, cache, milestone)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (desk.folder / output).exists()
    assert desk.finish(output, cache) == undisturbed
    assert desk.parts() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("milestone", TRACKED_AND_RENDERED)
def test_signals_end_at_once_and_leave_nothing(
    desk: Desk, number: signal.Signals, code: int, milestone: str
) -> None:
    output = f"signal-{number.name}.mp4"
    process = desk.start_until(output, f"cache-{number.name}-{len(milestone)}", milestone)
    process.send_signal(number)
    sent = time.perf_counter()
    _, errors = process.communicate(timeout=60)
    took = time.perf_counter() - sent
    assert process.returncode == code, errors.decode()
    assert b"Traceback" not in errors
    assert took < 5
    assert not (desk.folder / output).exists()
    assert desk.parts() == []
    assert not list(desk.folder.glob("cache*/**/.dubstream-*"))
