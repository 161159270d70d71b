"""`dubstream dub`."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from dubstream.runtime.artifacts import Artifacts
from dubstream.runtime.cli.orders import DubOrder, WeightsOptions
from dubstream.runtime.cli.show import Verbose, log, log_to_stderr, progress, stage_rows, table
from dubstream.runtime.emotion import EmotionOptions, parse_emotion
from dubstream.runtime.expression import ExpressionOptions, find_templates
from dubstream.runtime.job.dub import dub as run_dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.writer import EncodeOptions
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, FaceOptions, StreamOptions, parse_pads
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.options.quality import quality_of
from dubstream.runtime.options.upstream import MODES, NATIVE, parse_mode, refuse_native
from dubstream.runtime.speakers import parse_speakers
from dubstream.runtime.timeline import parse_audio_mode

_FILES = "Files and weights"
_FACE = "Face"
_FINISH = "Finish"
_SPEED = "Speed and memory"
_LIMITS = "Limits on input media"
_default = DubOptions()


def dub_order(
    video: Annotated[Path, typer.Argument(help="The talking-head video.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .mp4, .mov or .mkv.")],
    audio: Annotated[
        Path | None,
        typer.Argument(help="The new speech: an audio file, or a video's audio track. Not with --speaker."),
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            help="Speech for one of several people, once for each: 0=anna.wav; the face as in --face.",
            metavar="FACE=AUDIO",
            rich_help_panel=_FACE,
        ),
    ] = None,
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of exported artifacts.", metavar="DIR", rich_help_panel=_FILES)
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder of public checkpoints; exported first.", metavar="DIR", rich_help_panel=_FILES
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="'seeded': reproducible untrained weights.", metavar="seeded", rich_help_panel=_FILES
        ),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(
            help="Folder of built TensorRT plans; missing ones are built into it.",
            metavar="DIR",
            rich_help_panel=_FILES,
        ),
    ] = None,
    hmac_key: Annotated[
        Path | None,
        typer.Option(
            help="This installation's key file, for plans others can write.",
            metavar="FILE",
            rich_help_panel=_FILES,
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for preparations.", metavar="DIR", rich_help_panel=_FILES)
    ] = None,
    prepared: Annotated[
        Path | None,
        typer.Option(
            help="Use this preparation, made by `dubstream prepare`, and no other.",
            metavar="DIR",
            rich_help_panel=_FILES,
        ),
    ] = None,
    expression: Annotated[
        str,
        typer.Option(
            help="Of the references: neutral, smile, neutral:0.4:smile, PICTURE.png or VIDEO.mp4.",
            rich_help_panel=_FACE,
        ),
    ] = _default.expression.source,
    expression_templates: Annotated[
        Path | None,
        typer.Option(
            help="expression.mat; found among the checkpoints. Neutral is zero without.",
            metavar="FILE",
            rich_help_panel=_FACE,
        ),
    ] = None,
    one_shot: Annotated[
        bool,
        typer.Option(
            "--one-shot", help="References from the first frame of the face alone.", rich_help_panel=_FACE
        ),
    ] = False,
    emotion: Annotated[
        str,
        typer.Option(
            help=f"Of the upper face: {', '.join(EmotionOptions.NAMES)}; angry:0.5 for half of it.",
            rich_help_panel=_FACE,
        ),
    ] = _default.emotion.name,
    face: Annotated[
        str,
        typer.Option(
            help="largest, center, INDEX from the left, x,y,w,h, or PICTURE.png of the person.",
            rich_help_panel=_FACE,
        ),
    ] = _default.face.selector,
    faces: Annotated[
        str | None,
        typer.Option(
            help="Found by: cascade (no download), or networks (S3FD and FAN-4, see their licences).",
            rich_help_panel=_FACE,
        ),
    ] = None,
    pads: Annotated[
        str, typer.Option(help="top,bottom,left,right added to the face box.", rich_help_panel=_FACE)
    ] = "0,20,0,0",
    detect_every: Annotated[
        int, typer.Option(help="Detect in every n-th frame, track between.", rich_help_panel=_FACE)
    ] = _default.face.detect_every,
    face_gap: Annotated[
        int, typer.Option(help="Frames without a face that are bridged.", rich_help_panel=_FACE)
    ] = _default.face.max_gap,
    quality: Annotated[
        str,
        typer.Option(
            help="standard, or full: --faces networks --mask parse --restore gfpgan, unless given.",
            rich_help_panel=_FINISH,
        ),
    ] = "standard",
    mask: Annotated[
        str | None,
        typer.Option(
            help="What is replaced: box (the lower face) or parse (its outline, by ParseNet).",
            rich_help_panel=_FINISH,
        ),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(
            help="none, gfpgan (the mouth), gpen (the references; non-commercial) or both.",
            rich_help_panel=_FINISH,
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help=f"{' or '.join(MODES)}: the original program's numbers, slow, for comparison; "
            "asks for --restore both.",
            rich_help_panel=_FINISH,
        ),
    ] = NATIVE,
    source_box: Annotated[
        str | None,
        typer.Option(
            help="With --mode upstream: the part of the frames that is stabilised, as the original found it.",
            metavar="x1,y1,x2,y2",
            rich_help_panel=_FINISH,
        ),
    ] = None,
    audio_mode: Annotated[
        str, typer.Option(help="Unequal lengths: cut, loop, bounce, freeze or silence.")
    ] = _default.audio_mode.value,
    crf: Annotated[float, typer.Option(help="x264 quality, 0 (lossless) to 51.")] = _default.encode.crf,
    preset: Annotated[str, typer.Option(help="x264 speed preset.")] = _default.encode.preset,
    backend: Annotated[
        str, typer.Option(help=f"{', '.join(Backend.NAMES)}.", rich_help_panel=_SPEED)
    ] = _default.backend.name,
    device: Annotated[
        int, typer.Option(help="CUDA device of a GPU backend.", metavar="N", rich_help_panel=_SPEED)
    ] = _default.backend.device,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16 or, with tensorrt, bf16; the backend's own without.", rich_help_panel=_SPEED
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Frames per network call; 1 on the CPU and 4 on a GPU without.", rich_help_panel=_SPEED
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option(help="Batches under way at once.", rich_help_panel=_SPEED)
    ] = _default.stream.slots,
    threads: Annotated[
        int | None, typer.Option(help="Threads per network call.", rich_help_panel=_SPEED)
    ] = None,
    segment_seconds: Annotated[
        float, typer.Option(help="Seconds per resumable segment.", rich_help_panel=_SPEED)
    ] = _default.stream.segment_s,
    allow_truncated: Annotated[
        bool,
        typer.Option(
            "--allow-truncated", help="Dub what a damaged file still holds.", rich_help_panel=_LIMITS
        ),
    ] = False,
    max_pixels: Annotated[int, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.max_pixels,
    max_frames: Annotated[int, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.max_frames,
    max_duration: Annotated[float, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.max_duration_s,
    max_gap: Annotated[float, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.max_gap_s,
    max_frame_ratio: Annotated[
        float, typer.Option(rich_help_panel=_LIMITS)
    ] = _default.limits.max_frame_ratio,
    max_audio_channels: Annotated[
        int, typer.Option(rich_help_panel=_LIMITS)
    ] = _default.limits.max_audio_channels,
    max_audio: Annotated[float, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.max_audio_s,
    min_audio: Annotated[float, typer.Option(rich_help_panel=_LIMITS)] = _default.limits.min_audio_s,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome/Perfetto trace of the overlap.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on standard output.")] = False,
    verbose: Verbose = 0,
) -> DubOrder:
    """Dub VIDEO with the speech of AUDIO."""
    log_to_stderr(verbose)
    level = quality_of(quality)
    upstream = parse_mode(mode, source_box)
    if upstream is not None:
        # Options given here, if only with the value that the native mode takes by itself.
        refuse_native(
            {
                "--quality": quality != "standard",
                "--mask": mask is not None,
                "--faces": faces is not None,
            }
        )
    where = Backend(backend, device, precision)
    options = DubOptions(
        face=FaceOptions(face, detect_every, face_gap, level.finder if faces is None else faces),
        stream=StreamOptions(where.batch if batch is None else batch, slots, threads, segment_seconds),
        backend=where,
        pads=parse_pads(pads),
        audio_mode=parse_audio_mode(audio_mode),
        encode=EncodeOptions(crf=crf, preset=preset),
        limits=MediaLimits(
            max_pixels=max_pixels, max_frames=max_frames, max_duration_s=max_duration, max_gap_s=max_gap,
            max_frame_ratio=max_frame_ratio, max_audio_channels=max_audio_channels, max_audio_s=max_audio,
            min_audio_s=min_audio,
        ),
        allow_truncated=allow_truncated,
        expression=ExpressionOptions(
            expression, find_templates(expression_templates, checkpoints), one_shot
        ),
        trace=trace is not None,
        finish=FinishOptions(
            level.mask if mask is None else mask, level.restore if restore is None else restore
        ),
        emotion=parse_emotion(emotion),
        upstream=upstream,
    )  # fmt: skip
    return DubOrder(
        video, audio, output, options, WeightsOptions(artifacts, checkpoints, weights),
        engines, hmac_key, cache, prepared, trace, as_json, parse_speakers(speaker or ()),
    )  # fmt: skip


@wraps(dub_order)
def dub(**values: Any) -> None:
    order = dub_order(**values)
    # A missing driver or library shows before the minutes an export may take.
    with order.checked_platform():
        pass
    with progress(quiet=order.as_json) as report:
        networks = order.find_networks(report)
        announce(networks)
        summary = run_dub(order.request(networks), report)
    order.write_trace(summary)
    if order.as_json:
        print(json.dumps(summary.as_json()))
    else:
        _show(summary)


def announce(networks: Artifacts) -> None:
    """Say what the networks' licences are, and so where one is not trained."""
    for name, artifact in networks.items():
        log.print(f"[dim]licence of {name}: {artifact.spec.licence}", soft_wrap=True, highlight=False)
    seeded = {one.source for one in networks.values() if one.source.startswith("seeded:")}
    for source in sorted(seeded):
        log.print(
            f"[yellow]weights: {source}, NOT trained: the mouth will be noise, timing and plumbing are real"
        )


def _show(summary: DubSummary) -> None:
    table("time by stage", ("stage", "ms/frame", "share"), stage_rows(summary.busy_s, summary.frames))
    facts: list[tuple[str, Any]] = [
        ("output", summary.output),
        ("frames", f"{summary.frames} at {summary.rate} fps, {summary.dubbed} dubbed"),
        ("speed", f"{summary.fps:.2f} frames/s, {summary.wall_s:.1f} s in all"),
        ("audio - video", f"{1000 * summary.av_gap_s:.1f} ms"),
        ("without face", summary.absent_text()),
        ("computed by", summary.backend),
        ("weights", summary.weights),
    ]
    facts += [("note", note) for note in summary.notes]
    table("result", ("", ""), [(name, str(value)) for name, value in facts])
