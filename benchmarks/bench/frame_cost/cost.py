"""What an output frame costs: calls and multiply-accumulates of every network.

`FrameCost` has the figures, from the work that a job counted or from `steady_work`, which says what a job
with given options calls on a clip whose face is steady. Tests hold the two against each other, mode by mode.

| pass | network | items |
|---|---|---|
| track | s3fd, fan4 | a frame in `detect_every`, the first of a chunk, and each where tracking is lost |
| prepare | recon | every source frame, and a chunk's neighbours in driving windows |
| prepare | dnet, its restorers | every source frame |
| synthesise | all others | every output frame |

None of it depends on the size of the frames: the detector sees them reduced to a size of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from dubstream.benchmarks.bench.frame_cost.original import OriginalCost
from dubstream.engines.errors import UsageError
from dubstream.engines.specs import DNET, ENET, LNET, RECON, SPECS
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.options.dub import DubOptions, FaceOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.options.quality import QUALITIES, Quality
from dubstream.runtime.preparation.clip_faces import CHUNK_FRAMES
from dubstream.runtime.preparation.regress import runs_around
from dubstream.runtime.timing import NetworkWork

Span = tuple[int, int]


@dataclass(frozen=True)
class FrameCost:
    """Work of all networks over the frames of an output.

    Attributes:
        frames: of the output, at least 1.
        work: by network.
    """

    frames: int
    work: Mapping[str, NetworkWork]

    def items(self, network: str) -> float:
        """Items per output frame."""
        return self.work[network].items / self.frames

    def calls(self, network: str | None = None) -> float:
        """Calls (batches) per output frame; without a name those of all networks."""
        return sum(self.work[name].calls for name in self._named(network)) / self.frames

    def gmacs(self, network: str | None = None) -> float:
        """1e9 multiply-accumulates per output frame; without a name those of all networks."""
        return sum(SPECS[name].gmacs * self.work[name].items for name in self._named(network)) / self.frames

    def as_json(self) -> dict[str, object]:
        """Plain JSON types."""
        networks = {
            name: {
                "items": round(self.items(name), 6),
                "calls": round(self.calls(name), 6),
                "gmacs": round(self.gmacs(name), 3),
            }
            for name in self.work
        }
        return {"calls": round(self.calls(), 6), "gmacs": round(self.gmacs(), 3), "networks": networks}

    def _named(self, network: str | None) -> tuple[str, ...]:
        return tuple(self.work) if network is None else (network,)


@dataclass(frozen=True)
class SteadyClip:
    """A clip that shows one face in every frame.

    Attributes:
        frames: source frames.
        dubbed: output frames; None for as many. With fewer, only the chunks they need are prepared.
        rate: output frames per second.
        steady_share: of the frames, 0 to 1, in which the face is tracked; in the others it is lost, found
            again at once, and dubbed all the same: no real clip costs more.

    Raises:
        UsageError: a number out of range.
    """

    frames: int = 1500
    dubbed: int | None = None
    rate: Fraction = Fraction(25)
    steady_share: float = 1.0

    def __post_init__(self) -> None:
        most = MediaLimits().max_frames
        if not 1 <= min(self.frames, self.outputs) <= max(self.frames, self.outputs) <= most:
            raise UsageError(f"--frames received {self.frames}, expected 1 to {most}")
        if not 0 <= self.steady_share <= 1:  # also refuses NaN
            raise UsageError(f"--steady-share received {self.steady_share:g}, expected 0 to 1")

    @property
    def outputs(self) -> int:
        """Output frames."""
        return self.frames if self.dubbed is None else self.dubbed

    @property
    def chunks(self) -> list[Span]:
        """Source frames by the chunks of the first pass: first frame, and the one after the last."""
        return list(_cut(self.frames, CHUNK_FRAMES))

    @property
    def needed(self) -> list[Span]:
        """The chunks whose references the output shows."""
        return [chunk for chunk in self.chunks if chunk[0] < self.outputs]


def steady_cost(clip: SteadyClip, options: DubOptions, *, prepared: bool = False) -> FrameCost:
    """The cost of an output frame of `steady_work`."""
    return FrameCost(clip.outputs, steady_work(clip, options, prepared=prepared))


def steady_work(clip: SteadyClip, options: DubOptions, *, prepared: bool = False) -> dict[str, NetworkWork]:
    """What the networks of a dub are given.

    Args:
        clip: the clip.
        options: of the dub; its expression comes from a template.
        prepared: the first pass was done earlier and costs nothing.

    Returns:
        By network, in the order of `SPECS`, as `Timing.networks` of such a job gives it.
    """
    work = {} if prepared else _prepare(clip, options)
    for name, one in _synthesise(clip, options).items():
        items, calls = work.get(name, NetworkWork(0, 0))
        work[name] = NetworkWork(items + one.items, calls + one.calls)
    return {name: work[name] for name in SPECS if name in work}


def _prepare(clip: SteadyClip, options: DubOptions) -> dict[str, NetworkWork]:
    batch = options.stream.batch
    looks = sum(_looks(chunk, options.face.detect_every, clip.steady_share) for chunk in clip.chunks)
    present = np.ones(clip.frames, np.bool_)
    measured = [sum(last - first for first, last in runs_around(present, *chunk)) for chunk in clip.needed]
    referenced = _batched([stop - start for start, stop in clip.needed], batch)
    return {
        **dict.fromkeys(options.face.networks, NetworkWork(looks, looks)),  # one picture a call
        RECON.name: _batched(measured, batch),
        **dict.fromkeys((DNET.name, *options.finish.reference_networks), referenced),
    }


def _synthesise(clip: SteadyClip, options: DubOptions) -> dict[str, NetworkWork]:
    segment = max(round(options.stream.segment_s * clip.rate), 1)
    lengths = [stop - start for start, stop in _cut(clip.outputs, segment)]
    names = (LNET.name, ENET.name, *options.emotion.networks, *options.finish.frame_networks)
    return dict.fromkeys(names, _batched(lengths, options.stream.batch))


def _looks(chunk: Span, every: int, steady_share: float) -> int:
    """Frames of a chunk in which faces are looked for."""
    start, stop = chunk
    planned = sum(index == start or index % every == 0 for index in range(start, stop))
    return planned + round((1 - steady_share) * (stop - start - planned))


def _batched(lengths: list[int], batch: int) -> NetworkWork:
    """Streams of that many items, each in batches of its own."""
    return NetworkWork(sum(lengths), sum(-(-length // batch) for length in lengths))


def _cut(frames: int, length: int) -> Iterator[Span]:
    return ((start, min(start + length, frames)) for start in range(0, frames, length))


@dataclass(frozen=True)
class Mode:
    """A way to dub, and what it may cost.

    Attributes:
        name: for people.
        options: of the dub.
        prepared: the first pass was done earlier.
        most_gmacs: 1e9 multiply-accumulates per output frame it is to stay below; None: not said.
    """

    name: str
    options: DubOptions = field(default_factory=DubOptions)
    prepared: bool = False
    most_gmacs: float | None = None

    @property
    def target(self) -> str:
        """What it is to stay below, in words; empty where that is not said."""
        return "" if self.most_gmacs is None else f"{self.most_gmacs:.0f}"


def options_of(quality: Quality) -> DubOptions:
    """A dub of that quality and nothing else."""
    return DubOptions(
        face=FaceOptions(finder=quality.finder), finish=FinishOptions(quality.mask, quality.restore)
    )


MODES = (
    Mode("standard", options_of(QUALITIES["standard"])),
    Mode("full", options_of(QUALITIES["full"]), most_gmacs=800),
    Mode("full, not restored", options_of(Quality("networks", "parse", "none")), most_gmacs=420),
    Mode("full, prepared", options_of(QUALITIES["full"]), prepared=True, most_gmacs=640),
)
"""What `bench cost` shows where no option says otherwise."""


def mode_rows(
    costs: Sequence[tuple[Mode, FrameCost]], originals: Sequence[OriginalCost]
) -> Iterator[tuple[str, ...]]:
    """A line per mode: calls and GMAC per output frame, the target, and how many times less than each."""
    for mode, cost in costs:
        gmacs = cost.gmacs()
        missed = mode.most_gmacs is not None and gmacs > mode.most_gmacs
        yield (
            mode.name, f"{cost.calls():.2f}", f"{gmacs:.1f}", mode.target + (", missed" if missed else ""),
            *(f"{one.gmacs / gmacs:.1f}" for one in originals),
        )  # fmt: skip
