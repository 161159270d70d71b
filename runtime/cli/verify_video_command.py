"""`dubstream verify video` and `dubstream verify dub`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from dubstream.engines.errors import UsageError
from dubstream.runtime.artifacts import find_artifacts
from dubstream.runtime.cli import verify_options as options
from dubstream.runtime.cli.show import Verbose, log_to_stderr, progress, table
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.writer import EncodeOptions
from dubstream.runtime.options.dub import DubOptions, DubRequest, FaceOptions, StreamOptions, parse_pads
from dubstream.runtime.platforms.platform import open_platform
from dubstream.runtime.review.compare import Expect, Review, ReviewRequest, review_videos
from dubstream.runtime.review.report import COLUMNS, as_json, check_report, rows, write_report
from dubstream.runtime.review.two_dubs import compare_dubs, parse_side
from dubstream.runtime.review.verdict import Measure, Thresholds, check, judge
from dubstream.runtime.timeline import parse_audio_mode

_SIDES = "The two sides"
_INPUT = "Limits on input media"
_default = DubOptions()


def verify_video(
    first: Annotated[Path, typer.Argument(metavar="A", help="The video that is right.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The video to be judged.")],
    expect: Annotated[
        Expect, typer.Option(help="same: B shows what A shows. dubbed: A is the source, B its dub.")
    ] = Expect.SAME,
    faces: Annotated[
        Path | None,
        typer.Option(
            help="Preparation of A, CACHE/prepared/KEY; without, the face is tracked.",
            metavar="PREP",
            rich_help_panel=options.FACE,
        ),
    ] = None,
    face: options.Face = _default.face.selector,
    face_gap: options.Gap = _default.face.max_gap,
    pads: options.Pads = "0,20,0,0",
    audio_mode: Annotated[
        str, typer.Option(help="Of a dub longer or shorter than A: cut, loop, bounce, freeze or silence.")
    ] = _default.audio_mode.value,
    min_ssim: options.MinSsim = None,
    min_mouth_ssim: options.MinMouth = None,
    min_lip_correlation: options.MinLips = None,
    min_lip_energy: options.MinEnergy = None,
    max_lip_energy: options.MaxEnergy = None,
    min_worst_ssim: options.MinWorst = None,
    min_worst_mouth_ssim: options.MinWorstMouth = None,
    min_psnr: options.MinPsnr = None,
    max_sharpness_loss: options.MaxSharpness = None,
    max_seam: options.MaxSeam = None,
    max_flicker: options.MaxFlicker = None,
    max_background_share: options.MaxBackground = None,
    max_av_offset: options.MaxOffset = None,
    max_length_gap: options.MaxLength = None,
    max_sound_difference: options.MaxSound = None,
    max_frame_gap: options.MaxFrames = None,
    background_level: options.Level = ReviewRequest.background_level,
    max_pixels: Annotated[int, typer.Option(rich_help_panel=_INPUT)] = _default.limits.max_pixels,
    max_frames: Annotated[int, typer.Option(rich_help_panel=_INPUT)] = _default.limits.max_frames,
    max_duration: Annotated[float, typer.Option(rich_help_panel=_INPUT)] = _default.limits.max_duration_s,
    max_gap: Annotated[float, typer.Option(rich_help_panel=_INPUT)] = _default.limits.max_gap_s,
    max_audio: Annotated[float, typer.Option(rich_help_panel=_INPUT)] = _default.limits.max_audio_s,
    report: options.Report = None,
    as_json_: options.Json = False,
    verbose: Verbose = 0,
) -> None:
    """Compare video B with video A: pictures, mouth, lip motion, seams, flicker, background, sound."""
    log_to_stderr(verbose)
    thresholds = Thresholds.of(
        expect, min_ssim=min_ssim, min_mouth_ssim=min_mouth_ssim, min_lip_correlation=min_lip_correlation,
        min_lip_energy=min_lip_energy, max_lip_energy=max_lip_energy, min_worst_ssim=min_worst_ssim,
        min_worst_mouth_ssim=min_worst_mouth_ssim, min_psnr=min_psnr, max_sharpness_loss=max_sharpness_loss,
        max_seam=max_seam, max_flicker=max_flicker, max_background_share=max_background_share,
        max_av_offset=max_av_offset, max_length_gap=max_length_gap,
        max_sound_difference=max_sound_difference, max_frame_gap=max_frame_gap,
    )  # fmt: skip
    request = ReviewRequest(
        first, second, expect, faces, FaceOptions(face, max_gap=face_gap), parse_pads(pads),
        parse_audio_mode(audio_mode),
        MediaLimits(
            max_pixels=max_pixels, max_frames=max_frames, max_duration_s=max_duration, max_gap_s=max_gap,
            max_audio_s=max_audio,
        ),
        background_level,
    )  # fmt: skip
    if report is not None:
        check_report(report)
    with progress(quiet=as_json_) as tell:
        review = review_videos(request, tell)
    _conclude(review, thresholds, report, as_json_, {}, (str(first), str(second)))


def verify_dub(
    video: Annotated[Path, typer.Argument(help="A talking-head video; a short one will do.")],
    audio: Annotated[Path, typer.Argument(help="Speech: an audio file, or a video's audio track.")],
    against: Annotated[
        str,
        typer.Option(
            help='The side to be judged: "backend=NAME,precision=P,device=N".', rich_help_panel=_SIDES
        ),
    ],
    reference: Annotated[
        str, typer.Option(help="The side that is right, likewise.", rich_help_panel=_SIDES)
    ] = "backend=onnxruntime,precision=fp32",
    artifacts: Annotated[
        Path | None,
        typer.Option(help="Folder of artifacts, in both precisions.", metavar="DIR", rich_help_panel=_SIDES),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints; exported first.", metavar="DIR", rich_help_panel=_SIDES),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="'seeded': reproducible untrained weights.", metavar="seeded", rich_help_panel=_SIDES
        ),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder of built TensorRT plans.", metavar="DIR", rich_help_panel=_SIDES),
    ] = None,
    hmac_key: Annotated[
        Path | None,
        typer.Option(help="Key file, for plans others can write.", metavar="FILE", rich_help_panel=_SIDES),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep both videos: a folder that is there.", metavar="DIR", rich_help_panel=_SIDES),
    ] = None,
    batch: Annotated[int, typer.Option(help="Frames per network call.")] = _default.stream.batch,
    threads: Annotated[int | None, typer.Option(help="Threads per network call.")] = None,
    crf: Annotated[float, typer.Option(help="x264 quality of both, 0 (lossless) to 51.")] = 0,
    preset: Annotated[str, typer.Option(help="x264 speed preset of both.")] = _default.encode.preset,
    face: options.Face = _default.face.selector,
    face_gap: options.Gap = _default.face.max_gap,
    pads: options.Pads = "0,20,0,0",
    audio_mode: Annotated[
        str, typer.Option(help="Unequal lengths: cut, loop, bounce, freeze or silence.")
    ] = _default.audio_mode.value,
    min_ssim: options.MinSsim = None,
    min_mouth_ssim: options.MinMouth = None,
    min_lip_correlation: options.MinLips = None,
    min_lip_energy: options.MinEnergy = None,
    max_lip_energy: options.MaxEnergy = None,
    min_worst_ssim: options.MinWorst = None,
    min_worst_mouth_ssim: options.MinWorstMouth = None,
    min_psnr: options.MinPsnr = None,
    max_sharpness_loss: options.MaxSharpness = None,
    max_seam: options.MaxSeam = None,
    max_flicker: options.MaxFlicker = None,
    max_background_share: options.MaxBackground = None,
    background_level: options.Level = ReviewRequest.background_level,
    report: options.Report = None,
    as_json_: options.Json = False,
    verbose: Verbose = 0,
) -> None:
    """Dub VIDEO with AUDIO on two backends or precisions, and compare the results.

    Both are encoded without loss unless --crf says otherwise: what differs is then what was computed, not
    what the encoder made of it.
    """
    log_to_stderr(verbose)
    thresholds = Thresholds.of(
        Expect.SAME, min_ssim=min_ssim, min_mouth_ssim=min_mouth_ssim,
        min_lip_correlation=min_lip_correlation, min_lip_energy=min_lip_energy, max_lip_energy=max_lip_energy,
        min_worst_ssim=min_worst_ssim, min_worst_mouth_ssim=min_worst_mouth_ssim, min_psnr=min_psnr,
        max_sharpness_loss=max_sharpness_loss, max_seam=max_seam, max_flicker=max_flicker,
        max_background_share=max_background_share,
    )  # fmt: skip
    stream = StreamOptions(batch=batch, threads=threads)
    sides = {
        "reference": parse_side("--reference", reference),
        "candidate": parse_side("--against", against),
    }
    if report is not None:
        check_report(report)
    for backend in sides.values():  # a missing device shows before minutes of dubbing
        with open_platform(backend, stream):
            pass
    with progress(quiet=as_json_) as tell, _workplace(keep) as (folder, results):
        requests = []
        for side, backend in sides.items():
            settings = DubOptions(
                face=FaceOptions(face, max_gap=face_gap), stream=stream, backend=backend,
                pads=parse_pads(pads), audio_mode=parse_audio_mode(audio_mode),
                encode=EncodeOptions(crf=crf, preset=preset),
            )  # fmt: skip
            networks = find_artifacts(
                artifacts, checkpoints, weights,
                precision=backend.precision, threads=threads, progress=tell,
            )  # fmt: skip
            requests.append(
                DubRequest(
                    video,
                    audio,
                    results / f"{side}.mp4",
                    networks,
                    folder / side,
                    settings,
                    engines,
                    hmac_key,
                )
            )
        both = compare_dubs(requests[0], requests[1], background_level=background_level, progress=tell)
        facts = {
            "A computed by": both.reference.backend,
            "B computed by": both.candidate.backend,
            "weights": both.reference.weights,
            "seconds": {"A": round(both.reference.wall_s, 1), "B": round(both.candidate.wall_s, 1)},
        }
    _conclude(
        both.review, thresholds, report, as_json_, facts, (both.reference.backend, both.candidate.backend)
    )


@contextmanager
def _workplace(keep: Path | None) -> Iterator[tuple[Path, Path]]:
    """A folder for preparations, deleted in the end, and the one for the two videos."""
    if keep is not None and not keep.is_dir():
        raise UsageError(f"--keep received {keep}, which is no folder", hint=f"mkdir -p {keep}")
    with TemporaryDirectory(prefix="dubstream-verify-") as name:
        yield Path(name), keep or Path(name)


def _conclude(
    review: Review,
    thresholds: Thresholds,
    report: Path | None,
    as_json_: bool,
    facts: dict[str, Any],
    names: tuple[str, str],
) -> None:
    """Judge, write and print everything; only then raise for what does not hold."""
    measures = judge(review, thresholds)
    facts = {**facts, **_made_by()}
    if report is not None:
        write_report(report, review, measures, facts)
    if as_json_:
        print(json.dumps(as_json(review, measures, facts), allow_nan=False))
    else:
        _show(measures, names)
    check(measures, *names)


def _show(measures: Sequence[Measure], names: tuple[str, str]) -> None:
    table(f"B {names[1]} against A {names[0]}", COLUMNS, rows(measures))


def _made_by() -> dict[str, Any]:
    packages = ("dubstream", "numpy", "av", "opencv-python-headless", "onnxruntime", "tensorrt")
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "python": platform.python_version(), "machine": platform.platform()}
