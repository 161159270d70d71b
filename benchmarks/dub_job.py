"""Whole dubs as a user runs them: speed, memory against length, and resuming after `kill -9`.

`python -m dubstream.benchmarks.dub_job VIDEO AUDIO --artifacts DIR --folder WORK` prints JSON rows:

- `dub`: frames, fps, audio against video, peak memory, wall time over the slowest resource;
- `dub/long` (`--times N`): the same for the clip and the voice repeated N times, and the ratio of the peaks;
- `dub/killed` (`--kills N`): kill -9 at N random moments, each followed by the same command; whether the
  bytes equal those of the undisturbed run.

Every dub is a process of its own with a cache of its own; peak memory is the kernel's figure for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.benchmarks.rows import machine


class Bench:
    """One folder of work, one set of artifacts."""

    def __init__(self, folder: Path, artifacts: Path, options: list[str]) -> None:
        self.folder = folder
        self._artifacts = artifacts
        self._options = options
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, video: Path, audio: Path, name: str, cache: str) -> subprocess.Popen[bytes]:
        """Start `dubstream dub`; its summary goes to NAME.json."""
        command = [
            sys.executable, "-m", "dubstream.runtime.cli", "dub", str(video), str(audio),
            "-o", str(self.folder / f"{name}.mp4"), "--artifacts", str(self._artifacts),
            "--cache", str(self.folder / cache), "--json", *self._options,
        ]  # fmt: skip
        with (self.folder / f"{name}.json").open("wb") as summary:
            return subprocess.Popen(command, stdout=summary, stderr=subprocess.DEVNULL)

    def dub(self, video: Path, audio: Path, name: str, cache: str | None = None) -> dict[str, Any]:
        """Run to the end; the summary, with the kernel's peak memory and the output's digest."""
        began = time.perf_counter()
        process = self.start(video, audio, name, cache or f"cache-{name}")
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"dub '{name}' ended with {os.waitstatus_to_exitcode(status)}")
        summary: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_bytes())
        digest = hashlib.sha256((self.folder / f"{name}.mp4").read_bytes()).hexdigest()
        process_s = time.perf_counter() - began
        # The path says something about the machine and nothing about the dub.
        del summary["output"]
        return {**summary, "process_s": process_s, "peak_mib": usage.ru_maxrss / 1024, "sha256": digest}

    def kill(self, video: Path, audio: Path, name: str, after_s: float) -> bool:
        """Start, kill -9 after some seconds; whether it was still running then."""
        process = self.start(video, audio, name, f"cache-{name}")
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def repeat_media(video: Path, audio: Path, times: int, folder: Path) -> tuple[Path, Path]:
    """The clip and the voice, `times` times over, encoded anew."""
    from dubstream.runtime.media.assemble import assemble
    from dubstream.runtime.media.audio import AudioTrack, decode_audio
    from dubstream.runtime.media.limits import MediaLimits
    from dubstream.runtime.media.probe import probe_video
    from dubstream.runtime.media.reader import VideoReader
    from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter

    limits = MediaLimits()
    info = probe_video(video, limits)
    plan = info.plan(limits)
    segment = folder / "once.mp4"
    with (
        VideoReader(info, limits) as reader,
        SegmentWriter(segment, width=info.width, height=info.height, rate=info.rate, colour=info.colour,
                      options=EncodeOptions(preset="veryfast")) as writer,
    ):  # fmt: skip
        for _, picture in reader.frames_at(plan):
            writer.write(picture)
    track = decode_audio(audio, limits)
    long_track = AudioTrack(np.tile(track.samples, times), track.rate, track.layout)
    frames = len(plan) * times
    long_video, long_audio = folder / "long-video.mp4", folder / "long-audio.mp4"
    assemble([segment] * times, None, long_video, rate=info.rate, frames=frames)
    spoken = int(track.samples.shape[1] * times * info.rate / track.rate)
    copies = [segment] * -(-spoken // len(plan))
    assemble(copies, long_track, long_audio, rate=info.rate, frames=len(plan) * len(copies))
    return long_video, long_audio


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="empty working folder")
    parser.add_argument("--times", type=int, default=0, help="also dub the media repeated N times")
    parser.add_argument("--kills", type=int, default=0, help="also kill -9 at N random moments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default="", help="further options of dubstream dub, in one string")
    chosen = parser.parse_args()
    bench = Bench(chosen.folder, chosen.artifacts, shlex.split(chosen.options))
    facts = machine()

    def row(stage: str, **values: Any) -> None:
        print(json.dumps({"stage": stage, "n": 1, **values, **facts}), flush=True)

    once = bench.dub(chosen.video, chosen.audio, "once")
    row("dub", **once)
    draw = np.random.default_rng(chosen.seed)
    for number in range(chosen.kills):
        after_s = float(draw.uniform(0.05, 0.95)) * once["process_s"]
        name = f"killed-{number}"
        running = bench.kill(chosen.video, chosen.audio, name, after_s)
        again = bench.dub(chosen.video, chosen.audio, name)
        row("dub/killed", after_s=after_s, was_running=running, equal=again["sha256"] == once["sha256"],
            reused=again["reused"], second_s=again["process_s"], first_s=once["process_s"])  # fmt: skip
    if chosen.times:
        video, audio = repeat_media(chosen.video, chosen.audio, chosen.times, chosen.folder)
        long = bench.dub(video, audio, "long")
        row("dub/long", **long, times=chosen.times, peak_ratio=long["peak_mib"] / once["peak_mib"])


if __name__ == "__main__":
    main()
