"""Whole dubs with `--mode upstream` on toy networks, against a restatement that keeps all in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import upstream_toys
from clips import QUICK, write_speech, write_video
from upstream_toys import publish_upstream_toys, written

from dubstream.benchmarks.demo_clip import portrait_frames
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import NoFaceError, StageError, UsageError
from dubstream.kernels.detection import (
    RETINAFACE_RULE,
    RETINAFACE_STRICT_RULE,
    FaceRule,
    faces_among,
    fan_crop,
    fan_picture,
    whole_points,
)
from dubstream.runtime.audio import mel_spectrogram, speech_from, window_starts
from dubstream.runtime.cli.app import run as command
from dubstream.runtime.coefficients import driving_rows, driving_window, frame_coefficients
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.expression import ExpressionOptions
from dubstream.runtime.faces.geometry import Box, Pads
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.job.upstream import container_rate
from dubstream.runtime.media.audio import decode_audio
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, FaceOptions, StreamOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.options.upstream import SizedDetectors, UpstreamOptions, parse_mode
from dubstream.runtime.preparation import upstream as upstream_module
from dubstream.runtime.preparation import upstream_units
from dubstream.runtime.preparation.references import ReferenceReader
from dubstream.runtime.speakers import Speaker
from dubstream.runtime.timeline import AudioMode
from dubstream.runtime.units.unit_folder import UnitFolder
from dubstream.runtime.upstream.boxes import best_face, face_boxes, shown_frames
from dubstream.runtime.upstream.five_points import Faces
from dubstream.runtime.upstream.frame import (
    UpstreamNetworks,
    enhanced_reference,
    finished_frame,
    synthesised_frame,
)
from dubstream.runtime.upstream.landmarks import filled_landmarks, recon_input, source_box, source_picture
from dubstream.runtime.upstream.pixels import picture_of, planes_of
from dubstream.runtime.upstream.references import reference_frame

WIDTH, HEIGHT, FRAMES, OUTPUTS = 320, 240, 9, 12
HIDDEN = 5  # its face is in the dark: seen in the whole frame, not in the picture that is stabilised
MEANS = np.array([104, 117, 123], np.float32)
UPSTREAM = DubOptions(
    stream=StreamOptions(threads=1, segment_s=0.2),
    encode=QUICK,
    finish=FinishOptions("box", "both"),
    upstream=UpstreamOptions(),
)
Dubbed = tuple[DubSummary, list[np.ndarray]]


def clip_frames() -> Iterator[np.ndarray]:
    """A portrait whose light changes, so that the toys' boxes move."""
    for index, frame in enumerate(portrait_frames(FRAMES, WIDTH)):
        light = 0.55 + 0.45 * np.cos(1.3 * index)
        lit = np.asarray(frame[40 : 40 + HEIGHT] * light + 20, np.uint8)
        if index == HIDDEN:
            lit = np.full_like(lit, 255)
            lit[:, 24:304] = 5
        yield lit


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstream_units, "CHUNK_FRAMES", 4)
        patch.setattr(upstream_module, "CHUNK_FRAMES", 4)
        yield


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    with pytest.MonkeyPatch.context() as patch:
        return publish_upstream_toys(tmp_path_factory.mktemp("toys"), WIDTH, HEIGHT, patch)


@pytest.fixture(scope="module")
def request_(toys: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> DubRequest:
    folder = tmp_path_factory.mktemp("upstream")
    video = write_video(folder / "talk.mp4", clip_frames())
    voice = write_speech(folder / "voice.wav", 0.61)
    return DubRequest(video, voice, folder / "out.mp4", toys, folder / "cache", UPSTREAM)


class Original:
    """The original's order: every stage over the whole clip, everything in memory."""

    def __init__(self, request: DubRequest, box: Box | None = None) -> None:
        info = probe_video(request.video, MediaLimits())
        with VideoReader(info, MediaLimits()) as reader:
            self.frames = [frame for _, frame in reader.frames()]
        self.sessions = {name: session(one) for name, one in request.artifacts.items()}
        self.sized = SizedDetectors.of(WIDTH, HEIGHT)
        track = decode_audio(request.voices[0].audio, MediaLimits())
        self.mel = mel_spectrogram(speech_from(track.samples, track.rate))
        self.starts = window_starts(self.mel.shape[1], Fraction(25), rule="upstream")
        self.pads = request.options.pads
        self.used = min(len(self.frames), len(self.starts))
        self.box = box or self._source_box()

    def net(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        network = self.sessions[name]
        outputs = network.run(None, {key: value[None] for key, value in inputs.items()})
        return {one.name: value[0] for one, value in zip(network.get_outputs(), outputs, strict=True)}

    def best(self, name: str, picture: np.ndarray) -> np.ndarray | None:
        image = (picture[..., ::-1].astype(np.float32) - MEANS).transpose(2, 0, 1)
        found = self.net(name, image=np.ascontiguousarray(image))
        return best_face(found["boxes"], found["scores"])

    def landmarks(self, name: str, rgb: np.ndarray) -> np.ndarray | None:
        box = self.best(name, rgb)
        if box is None:
            return None
        crop = fan_crop(box.tolist())
        image = fan_picture(rgb, crop).astype(np.float32) / np.float32(255)
        heatmaps = self.net("fan4", image=np.ascontiguousarray(image.transpose(2, 0, 1)))["heatmaps"]
        return whole_points(heatmaps, crop)

    def faces(self, name: str, rule: FaceRule) -> Callable[[np.ndarray], Faces]:
        def detect(levels: np.ndarray) -> Faces:
            image = np.ascontiguousarray((levels - MEANS).transpose(2, 0, 1))
            found = self.net(name, image=image)
            kept = faces_among(found["boxes"], found["scores"], rule)
            return Faces(found["boxes"][kept], found["scores"][kept], found["points"][kept])

        return detect

    def prepare(self, expression: np.ndarray, *, one_shot: bool = False) -> None:
        """Stages 3.2 to 3.7 over the clip, then 5.3 and 5.1 over the frames that are shown."""
        small = self.sized.crop_boxes
        pictures = [source_picture(frame, self.box) for frame in self.frames]
        self.landmarks_3d = filled_landmarks([self.landmarks(small, picture) for picture in pictures])
        coefficients = []
        for picture, points in zip(pictures, self.landmarks_3d, strict=True):
            aligned, numbers = recon_input(picture, points)
            image = aligned.astype(np.float32) / np.float32(255)
            found = self.net("recon", image=np.ascontiguousarray(image.transpose(2, 0, 1)))
            coefficients.append(frame_coefficients(found["coeffs"][None], numbers[None]))
        self.coefficients = np.concatenate(coefficients)
        rows = driving_rows(self.coefficients, expression)
        stabilised = []
        for index, picture in enumerate(pictures):
            image = planes_of(np.ascontiguousarray((pictures[0] if one_shot else picture)[..., ::-1]))
            made = self.net("dnet", image=image, coefficients=driving_window(rows, index))["edited"]
            stabilised.append(picture_of(made, truncate=True))
        frames = self.frames[: self.used]
        self.found = [self.best(self.sized.frame_boxes, frame) for frame in frames]
        self.boxes = face_boxes(self.found, WIDTH, HEIGHT, self.pads)
        self.enhanced = [
            enhanced_reference(one, self.networks(small=True)) for one in stabilised[: self.used]
        ]
        self.reference_landmarks = filled_landmarks([self.landmarks(small, one) for one in self.enhanced])

    def networks(self, *, small: bool = False, emotion: EmotionOptions | None = None) -> UpstreamNetworks:
        def lips(mel: np.ndarray, faces: np.ndarray) -> np.ndarray:
            four = faces[:, 1::4, 1::4] + faces[:, 1::4, 2::4], faces[:, 2::4, 1::4] + faces[:, 2::4, 2::4]
            quarter = np.asarray((four[0] * 0.5 + four[1] * 0.5) * 0.5, np.float32)
            seen = self.net("lnet", mel=mel, faces=quarter)["lips"]
            return self.net("enet", lips=seen, reference=faces[3:])["enhanced"]

        def edit(planes: np.ndarray) -> np.ndarray:
            assert emotion is not None
            return self.net("ganimation", image=planes, aus=emotion.intensities)["fused"]

        return UpstreamNetworks(
            landmarks=lambda picture: self.landmarks(self.sized.crop_boxes, picture),
            lips=lips,
            faces=self.faces(self.sized.crop_points if small else self.sized.mask_points, RETINAFACE_RULE),
            strict_faces=self.faces(self.sized.frame_points, RETINAFACE_STRICT_RULE),
            restore_reference=lambda planes: self.net("gpen", image=planes)["restored"],
            restore_mouth=lambda planes: self.net("gfpgan", image=planes)["restored"],
            parse=lambda planes: self.net("parsenet", image=planes)["classes"],
            edit_upper_face=edit if emotion else None,
        )

    def dubbed(self, emotion: EmotionOptions | None = None) -> list[np.ndarray]:
        """Stages 5.2, 5.4 and 7: every output frame."""
        networks = self.networks(emotion=emotion)
        references = [
            reference_frame(enhanced, points, frame, self.box)
            for enhanced, points, frame in zip(
                self.enhanced, self.reference_landmarks, self.frames[: self.used], strict=True
            )
        ]
        outputs = []
        for start, k in zip(self.starts, shown_frames(self.used, len(self.starts)), strict=True):
            mel = self.mel[None, :, start : start + 16]
            made = synthesised_frame(
                self.frames[k], references[k], self.boxes[k], mel, networks,
                replace_upper_face=emotion is not None,
            )  # fmt: skip
            outputs.append(finished_frame(made, self.frames[k], self.boxes[k], networks))
        return outputs

    def _source_box(self) -> Box:
        for frame in self.frames[: len(self.frames) // 2]:
            points = self.landmarks(self.sized.frame_boxes, np.ascontiguousarray(frame[..., ::-1]))
            if points is not None:
                return source_box(points, WIDTH, HEIGHT)
        raise AssertionError("nobody")


def session(artifact: Artifact) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def original(request_: DubRequest) -> Original:
    made = Original(request_)
    made.prepare(np.zeros(64, np.float32))
    return made


@pytest.fixture(scope="module")
def dubbed(request_: DubRequest) -> tuple[DubSummary, list[np.ndarray]]:
    """The dub of `request_`."""
    return written(request_)


def assert_equal(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> None:
    assert len(ours) == len(theirs)
    different = [at for at, pair in enumerate(zip(ours, theirs, strict=True)) if not np.array_equal(*pair)]
    assert different == []


def test_every_frame_is_the_originals(dubbed: Dubbed, original: Original) -> None:
    assert len({box.x1 for box in original.boxes}) > 3  # they move
    summary, frames = dubbed
    assert len(original.starts) == OUTPUTS  # more than frames: it jumps back
    assert_equal(frames, original.dubbed())
    assert (summary.frames, summary.dubbed, summary.absent) == (OUTPUTS, OUTPUTS, [])
    told = " ".join(summary.notes)
    assert f"source box {','.join(map(str, original.box))} by S3FD and FAN-4" in told
    assert "licence of gpen: non-commercial" in told
    assert {
        "track/s3fd_320x240",
        "measure/recon",
        "stabilise/gpen",
        "synthesise/gfpgan",
    } <= summary.busy_s.keys()
    assert min(summary.busy_s.values()) > 0
    assert summary.networks["parsenet"].items == FRAMES - 1 + 2 * OUTPUTS  # nobody is seen in the hidden one
    assert summary.networks["retinaface_320x240"].items == 2 * OUTPUTS


def test_what_is_kept_on_disk_is_the_originals(
    request_: DubRequest, dubbed: Dubbed, original: Original
) -> None:
    (folder,) = [
        path for path in (request_.cache / "prepared").iterdir() if (path / "faces-00000.npz").exists()
    ]
    found = np.concatenate([np.load(path)["boxes"] for path in sorted(folder.glob("faces-*.npz"))])
    np.testing.assert_array_equal(found, np.stack(original.found))
    (measured,) = folder.glob("measured-*")
    assert np.load(measured / "source-box.npz")["box"].tolist() == list(original.box)
    tables = [np.load(path) for path in sorted(measured.glob("measured-*.npz"))]
    landmarks = np.concatenate([table["landmarks"] for table in tables])
    np.testing.assert_array_equal(landmarks, np.stack(original.landmarks_3d))
    np.testing.assert_array_equal(landmarks[HIDDEN], landmarks[HIDDEN - 1])
    coefficients = np.concatenate([table["coefficients"] for table in tables])
    np.testing.assert_array_equal(coefficients, original.coefficients)
    facts = [json.loads(path.read_text()) for path in sorted(folder.glob("references-*/*.json"))]
    points = [row for one in facts for row in one["facts"]["landmarks"]]
    np.testing.assert_array_equal(points, np.stack(original.reference_landmarks))
    assert points[HIDDEN] == points[HIDDEN - 1]
    (references,) = folder.glob("references-*")
    reader = ReferenceReader(UnitFolder(references, facts[0]["identity"]), 4)
    assert_equal([reader.read(index) for index in range(FRAMES)], original.enhanced)
    reader.close()


def test_frames_beyond_the_speech_are_dropped_before_boxes_are_averaged(
    request_: DubRequest, dubbed: Dubbed, original: Original, tmp_path: Path
) -> None:
    voice = write_speech(tmp_path / "short.wav", 0.42)
    request = replace(request_, audio=voice, output=tmp_path / "short.mp4")
    short = Original(request, original.box)
    assert short.used == len(short.starts) == 7
    short.prepare(np.zeros(64, np.float32))
    assert short.boxes[5] != original.boxes[5]
    summary, frames = written(request)
    assert_equal(frames, short.dubbed())
    # Another speech finds the video prepared.
    assert not any(stage.startswith(("track", "measure", "stabilise")) for stage in summary.busy_s)


def test_options_that_the_original_has(
    request_: DubRequest, original: Original, dubbed: Dubbed, tmp_path: Path
) -> None:
    box, pads = Box(80, 20, 240, 220), Pads(4, 12, 2, 6)
    options = replace(
        UPSTREAM,
        upstream=UpstreamOptions(box),
        pads=pads,
        emotion=EmotionOptions("angry"),
        expression=ExpressionOptions(one_shot=True),
    )
    voice = write_speech(tmp_path / "short.wav", 0.35)
    request = replace(request_, audio=voice, output=tmp_path / "other.mp4", options=options)
    other = Original(request, box)
    other.prepare(np.zeros(64, np.float32), one_shot=True)
    summary, frames = written(request)
    assert_equal(frames, other.dubbed(EmotionOptions("angry")))
    assert not np.array_equal(frames[0], dubbed[1][0])
    assert "source box" not in " ".join(summary.notes)
    assert summary.networks["ganimation"].items == len(frames) == 6


def test_a_job_that_is_interrupted_in_every_stage_goes_on_to_the_same_bytes(
    request_: DubRequest, dubbed: Dubbed, tmp_path: Path
) -> None:
    request = replace(request_, output=tmp_path / "out.mp4", cache=tmp_path / "cache")
    stages = ["track", "measure", "stabilise"]
    for moment in (*stages, "synthesise"):

        def interrupt(stage: str, done: int, total: int, moment: str = moment) -> None:
            if stage == moment and done > 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            dub(request, interrupt)
        assert not request.output.exists()
    summary = dub(request)
    assert not any(stage.startswith(tuple(stages)) for stage in summary.busy_s)
    assert summary.reused["segments"] == 1
    assert summary.networks["lnet"].items == OUTPUTS - 5
    assert request.output.read_bytes() == request_.output.read_bytes()
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize("dark", [0, 7])
def test_a_frame_without_a_face_is_named(request_: DubRequest, tmp_path: Path, dark: int) -> None:
    frames = [np.zeros_like(frame) if at == dark else frame for at, frame in enumerate(clip_frames())]
    video = write_video(tmp_path / "dark.mp4", frames)
    request = replace(request_, video=video, output=tmp_path / "out.mp4", cache=tmp_path / "cache")
    with pytest.raises(NoFaceError, match=f"frame {dark} shows no face"):
        dub(request)
    assert not request.output.exists()
    if dark:  # beyond a speech of 7 frames, it may have none
        dub(replace(request, audio=write_speech(tmp_path / "short.wav", 0.42)))


def test_a_first_reference_without_landmarks_is_named(request_: DubRequest, tmp_path: Path) -> None:
    frames = list(clip_frames())
    video = write_video(tmp_path / "late.mp4", [frames[HIDDEN], *frames])
    request = replace(request_, video=video, output=tmp_path / "out.mp4", cache=tmp_path / "cache")
    options = replace(UPSTREAM, upstream=UpstreamOptions(Box(80, 20, 240, 220)))
    with pytest.raises(NoFaceError, match="frame 0: its stabilised picture shows no face"):
        dub(replace(request, options=options))


@pytest.mark.parametrize(("network", "stage"), [("recon", "measure"), ("gfpgan", "upstream")])
def test_nonsense_of_a_network_is_named_with_stage_and_frame(
    request_: DubRequest, tmp_path: Path, network: str, stage: str
) -> None:
    broken = publish_broken(tmp_path / "broken", network)
    artifacts = {**request_.artifacts, network: broken}
    with pytest.raises(StageError, match=f"stage '{stage}' failed at frame 0.*{network}"):
        dub(replace(request_, artifacts=artifacts, output=tmp_path / "out.mp4"))
    assert not list(tmp_path.glob("out*"))


def publish_broken(folder: Path, network: str) -> Artifact:
    nodes, constants = upstream_toys.toy_networks._GRAPHS[network]
    with pytest.MonkeyPatch.context() as patch:
        wrong = {
            name: value * np.nan if value.dtype == np.float32 else value for name, value in constants.items()
        }
        patch.setitem(upstream_toys.toy_networks._GRAPHS, network, (nodes, wrong))
        folder.mkdir()
        return upstream_toys.toy_networks._publish(folder, upstream_toys.spec_of(network), broken=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"finish": FinishOptions("box", "gfpgan")}, "GPEN, which is for non-commercial use only.*gfpgan"),
        ({"finish": FinishOptions("parse", "both")}, "received --mask beside --mode upstream"),
        ({"face": FaceOptions("center")}, "received --face,"),
        ({"audio_mode": AudioMode.CUT}, "received --audio-mode"),
        ({"stream": StreamOptions(batch=2)}, "received --batch"),
        ({"emotion": EmotionOptions("sad", 0.5)}, "received --emotion sad:0.5"),
        ({"expression": ExpressionOptions("who.png")}, "received --expression who.png"),
        ({"backend": Backend("tensorrt", wanted="fp32")}, "--backend onnxruntime"),
        ({"backend": Backend(wanted="fp16")}, "--precision fp32"),
    ],
)
def test_what_the_original_does_not_have_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(UPSTREAM, **change)


def test_requests_that_make_no_sense_are_refused(request_: DubRequest, tmp_path: Path) -> None:
    two = Speaker("0", tmp_path / "a.wav"), Speaker("1", tmp_path / "b.wav")
    with pytest.raises(UsageError, match="received --speaker beside --mode upstream"):
        replace(request_, audio=None, speakers=two)
    with pytest.raises(UsageError, match="received --prepared"):
        replace(request_, prepared=tmp_path)
    outside = replace(UPSTREAM, upstream=UpstreamOptions(Box(80, 20, 321, 220)))
    with pytest.raises(UsageError, match="80,20,321,220, expected 16 pixels or more a side inside 320x240"):
        dub(replace(request_, options=outside))


@pytest.mark.parametrize(
    ("mode", "box", "words"),
    [
        ("original", None, "native, upstream"),
        ("native", "1,2,3,4", "makes no sense without --mode upstream"),
        ("upstream", "1,2,3", "expected x1,y1,x2,y2"),
        ("upstream", "30,2,20,40", "expected x1,y1,x2,y2"),
        ("upstream", "a,b,c,d", "expected x1,y1,x2,y2"),
    ],
)
def test_modes_and_boxes_that_are_none(mode: str, box: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_mode(mode, box)
    assert parse_mode("upstream", "1,2,30,40") == UpstreamOptions(Box(1, 2, 30, 40))
    assert parse_mode("native", None) is None


def test_the_command(request_: DubRequest, toys: dict[str, Artifact], tmp_path: Path, capfd: Any) -> None:
    folder = toys["dnet"].path.parent
    files = [str(request_.video), str(request_.audio), "-o", str(tmp_path / "out.mp4")]
    where = ["--artifacts", str(folder), "--cache", str(request_.cache)]

    def call(*more: str) -> str:
        code = command(["dub", *files, *where, "--mode", "upstream", "--threads", "1", *more])
        return f"{code} {capfd.readouterr().err}"

    for option, value in [("--quality", "full"), ("--mask", "box"), ("--faces", "cascade")]:
        assert f"received {option} beside" in call("--restore", "both", option, value)
    assert "non-commercial use only; received --restore none" in call()
    assert not (tmp_path / "out.mp4").exists()
    done = call("--restore", "both", "--preset", "ultrafast", "--json")
    assert done.startswith("0 ")
    assert "licence of retinaface_320x240: distributed with GPEN: non-commercial use only" in " ".join(
        done.split()
    )
    hidden = folder / "s3fd_320x240.fp32.json"
    hidden.rename(folder / "away")
    try:
        assert "dubstream export" in (told := call("--restore", "both"))
        assert "s3fd_320x240" in told
    finally:
        (folder / "away").rename(hidden)


def test_the_rate_is_the_containers(request_: DubRequest) -> None:
    info = probe_video(request_.video, MediaLimits())
    assert container_rate(replace(info, average_rate=Fraction(1350, 61))) == Fraction(1350, 61)
    for absurd in (None, Fraction(90000), Fraction(0)):
        assert container_rate(replace(info, average_rate=absurd)) == info.rate


def test_detectors_have_the_size_of_what_they_see() -> None:
    assert SizedDetectors.of(1920, 1080).names == (
        "s3fd_1920x1080", "s3fd_256x256", "retinaface_1920x1080", "retinaface_1000x562", "retinaface_256x256",
    )  # fmt: skip
    assert SizedDetectors.of(640, 384).names == ("s3fd", "s3fd_256x256", "retinaface", "retinaface_256x256")
    assert len(SizedDetectors.of(256, 256).names) == 2
    with pytest.raises(UsageError, match="30x256"):
        SizedDetectors.of(30, 256)
