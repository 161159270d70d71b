"""S3FD and FAN-4 behind the cascade's protocols: where pixels go in, where boxes and points come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_face_graphs import FACE_BOX, SCORE, landmarks
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import InternalError, StageError
from dubstream.engines.face_specs import BGR_MEANS, DETECTOR_SIZE
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.kernels.detection import S3FD_RULE, FanCrop, fan_crop, fine_points, whole_points
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks, Face
from dubstream.runtime.faces.networks import MOST_FACES, NetworkDetector, NetworkLandmarks, five_of
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.streaming.call import NetworkCall
from dubstream.runtime.streaming.host import HostDevice

HEIGHT, WIDTH = DETECTOR_SIZE
CELLS = FanCrop((32.0, 32.0), 64.0)  # a crop in which a cell is a pixel
Answer = Callable[[np.ndarray], dict[str, np.ndarray]]


class Played:
    """Stands in for a network: the answer is computed from the picture it is shown."""

    def __init__(self, answer: Answer, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        self._answer = answer
        self.image = np.full(shape, 77, dtype)  # what an earlier call left behind

    def input(self, name: str) -> np.ndarray:
        assert name == "image"
        return self.image

    def run(self) -> dict[str, np.ndarray]:
        return self._answer(self.image)


def finding(*faces: tuple[float, ...]) -> Played:
    """A detector that finds these (x1, y1, x2, y2, score) in its picture."""
    table = np.array(faces, np.float32).reshape(-1, 5)
    return Played(lambda _: {"boxes": table[:, :4], "scores": table[:, 4]}, (3, HEIGHT, WIDTH))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(720, 1280, 1 / 2), (1920, 1080, 0.2), (360, 640, 1), (100, 90, 1)]
)
def test_boxes_come_back_in_pixels_of_the_frame(height: int, width: int, scale: float) -> None:
    face = np.array([0.25 * width, 0.3 * height, 0.55 * width, 0.8 * height])
    found = NetworkDetector(finding((*(face * scale), 0.8))).detect(noise(height, width))
    assert len(found) == 1
    np.testing.assert_allclose(found[0].box, face, atol=0.01)
    assert found[0].score == pytest.approx(0.8)


def test_the_frame_is_shown_reduced_on_the_mean_colour() -> None:
    frame = np.full((720, 1280, 3), (10, 20, 30), np.uint8)
    planes, pixels = finding(), finding()
    pixels.image = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
    for call in (planes, pixels):
        NetworkDetector(call).detect(frame)
    for channel, value in enumerate((10, 20, 30)):
        assert (planes.image[channel, :360] == value - BGR_MEANS[channel]).all()
        assert (pixels.image[:360, :, channel] == value).all()
        assert (pixels.image[360:, :, channel] == BGR_MEANS[channel]).all()
    assert not planes.image[:, 360:].any()


def test_best_first_and_no_nonsense() -> None:
    good, better = (100, 100, 150, 160, 0.7), (300, 100, 350, 160, 0.9)
    nonsense = [
        (10, 10, 20, 30, 0.99),  # below 5 % of the frame
        (-90, 100, -20, 160, 0.99),  # its middle outside
        (-2000, -2000, 2400, 2400, 0.99),  # larger than the frame twice over
        (400, 200, 400, 260, 0.99),  # no width
        (500, 100, 560, 160, S3FD_RULE.score),  # not above the threshold
        (101, 101, 151, 161, 0.65),  # the same face again
    ]
    found = NetworkDetector(finding(good, *nonsense, better)).detect(noise(360, 640))
    assert [face.score for face in found] == pytest.approx([0.9, 0.7])
    assert found == NetworkDetector(finding(better, good)).detect(noise(360, 640))


def test_of_a_crowd_the_largest_faces_are_reported() -> None:
    crowd = [(30 * at, 100, 30 * at + 28, 140 + 2 * (at % 10), 0.6 + 0.015 * at) for at in range(20)]
    found = NetworkDetector(finding(*crowd)).detect(noise(360, 640))
    assert len(found) == MOST_FACES
    assert {round(face.y2) for face in found} == {152, 154, 156, 158}
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


def test_other_pictures_are_our_fault() -> None:
    with pytest.raises(InternalError, match="float64"):
        NetworkDetector(finding()).detect(np.zeros((360, 640, 3)))
    with pytest.raises(InternalError, match=r"\(67, 2\)"):
        five_of(np.zeros((67, 2)))


def test_five_of_the_68() -> None:
    points = np.arange(136, dtype=np.float64).reshape(68, 2)
    expected = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    np.testing.assert_array_equal(five_of(points), expected)


def peaks(columns: np.ndarray, rows: np.ndarray, width: float = 1.0, grain: float = 0.0) -> np.ndarray:
    """Heat maps (n, 64, 64) with Gaussians of that width around cells, and noise."""
    y, x = np.mgrid[:64, :64]
    distance = (x - columns[:, None, None]) ** 2 + (y - rows[:, None, None]) ** 2
    draw = np.random.default_rng(3)
    maps = np.exp(-distance / (2 * width**2)) + draw.normal(0, grain, (len(columns), 64, 64))
    return maps.astype(np.float32)


def quarter_rule(maps: np.ndarray) -> np.ndarray:
    """The original's: a quarter of a cell towards the higher neighbour; cells, untruncated."""
    rows, columns = np.divmod(maps.reshape(len(maps), -1).argmax(1), 64)
    at = np.arange(len(maps))
    shift = [maps[at, rows, columns + 1] - maps[at, rows, columns - 1]]
    shift += [maps[at, rows + 1, columns] - maps[at, rows - 1, columns]]
    return np.stack([columns, rows], 1) + 0.25 * np.sign(np.stack(shift, 1))


@pytest.mark.parametrize("width", [0.8, 1.5, 2.0])
@pytest.mark.parametrize("grain", [0.0, 0.03, 0.1])
def test_the_peak_rule_is_nearer_than_the_quarter_rule(width: float, grain: float) -> None:
    wanted = np.random.default_rng(4).uniform(5, 58, (200, 2))
    maps = peaks(*wanted.T, width, grain)
    fine = np.hypot(*(fine_points(maps, CELLS) - 0.5 - wanted).T).mean()
    quarter = np.hypot(*(quarter_rule(maps) - wanted).T).mean()
    assert fine < 0.95 * quarter
    assert grain or fine < 0.01


def seeing(dtype: type = np.float32) -> Played:
    """FAN-4 as it should be: every landmark lies at the centroid of what is bright in the crop."""

    def answer(image: np.ndarray) -> dict[str, np.ndarray]:
        gray = (image[..., 0] if dtype == np.uint8 else 255 * image[0]).astype(np.float64)
        bright = np.where(gray > 50, gray, 0)
        y, x = np.mgrid[:256, :256]
        cell = [((axis * bright).sum() / bright.sum() + 0.5) / 4 - 0.5 for axis in (x, y)]
        return {"heatmaps": peaks(*(np.full(68, at) for at in cell))}

    shape = (256, 256, 3) if dtype == np.uint8 else (3, 256, 256)
    return Played(answer, shape, dtype)


def drifting(frame: int) -> tuple[np.ndarray, Face, np.ndarray]:
    """A picture with one bright spot that drifts with its face by parts of a pixel; the spot's place."""
    corner = np.array([150.0 + 0.37 * frame, 80.0 + 0.21 * frame])
    side = 120 + 0.3 * frame
    spot = corner + np.array([64.3, 81.7])
    y, x = np.mgrid[:360, :480]
    glow = 250 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 5.0**2))
    picture = np.repeat(glow.astype(np.uint8)[..., None], 3, axis=2)
    return picture, Face(*corner, *(corner + side * np.array([0.8, 1.0])), 1.0), spot


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_points_are_where_they_were_drawn_and_do_not_jitter(dtype: type) -> None:
    ours, whole, exact = [], [], []
    for frame in range(40):
        picture, face, spot = drifting(frame)
        network = seeing(dtype)
        points = NetworkLandmarks(network).points(picture, face)
        np.testing.assert_allclose(points, points[[0] * 5], atol=1e-9)
        ours.append(points[0] - spot)
        maps = network.run()["heatmaps"][:1]
        exact.append(fine_points(maps, fan_crop(face.box.tolist()))[0] - spot)
        whole.append(whole_points(maps, fan_crop(face.box.tolist()))[0] - spot)
    assert np.abs(ours).max() < 0.25  # pixels

    def jitter(errors: list[np.ndarray]) -> float:
        return float(np.abs(np.diff(errors, 2, axis=0)).mean())

    assert jitter(ours) < 0.25 * jitter(exact) < jitter(whole)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return publish_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def device() -> Iterator[HostDevice]:
    with HostDevice() as host:
        yield host


def opened(artifact: Artifact) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(artifact.path, artifact.spec, threads=1, max_batch=1)


def test_through_engines(toys: dict[str, Artifact], device: HostDevice) -> None:
    frame = noise(480, 800)
    stream = device.stream("faces")
    with opened(toys["s3fd"]) as s3fd, opened(toys["fan4"]) as fan4:
        (face,) = NetworkDetector(NetworkCall(device, s3fd, stream)).detect(frame)
        points = NetworkLandmarks(NetworkCall(device, fan4, stream)).all_points(frame, face)
    expected = np.array(FACE_BOX) * np.tile((WIDTH, HEIGHT), 2) / 0.8
    np.testing.assert_allclose(face.box, expected, atol=0.05)
    assert face.score == pytest.approx(SCORE, abs=1e-3)
    x1, y1, x2, y2 = fan_crop(face.box.tolist()).box
    drawn = landmarks() * (x2 - x1, y2 - y1) + (x1 - 0.5, y1 - 0.5)
    assert np.abs(points - drawn).max() < 0.1 * (x2 - x1) / 64  # a tenth of a cell


@pytest.mark.parametrize("name", ["s3fd", "fan4"])
def test_nonsense_of_a_network_names_stage_and_frame(name: str, tmp_path: Path, device: HostDevice) -> None:
    toys = publish_toys(tmp_path, broken=name)
    stream = device.stream("faces")
    with opened(toys["s3fd"]) as s3fd, opened(toys["fan4"]) as fan4:
        detector = NetworkDetector(NetworkCall(device, s3fd, stream))
        points = NetworkLandmarks(NetworkCall(device, fan4, stream))
        with pytest.raises(StageError, match=f"'track' failed at frame 3: .*'{name}'.* not finite") as failed:
            observe([(3, noise(480, 800))], detector, points)
    assert failed.value.frame == 3


def test_a_failing_network_is_told_and_the_call_is_closed(
    toys: dict[str, Artifact], device: HostDevice, no_threads_left: None
) -> None:
    engine = opened(toys["s3fd"])
    call = NetworkCall(device, engine, device.stream("faces"))
    engine.close()
    with pytest.raises(StageError, match="s3fd"):
        call.run()
    device.close()


def test_both_ways_follow_the_same_face(toys: dict[str, Artifact], device: HostDevice) -> None:
    """A portrait put where the toys look: the cascade finds there what the networks claim."""
    cv2 = pytest.importorskip("cv2")
    astronaut = pytest.importorskip("skimage.data").astronaut()[..., ::-1]
    frame = cv2.warpAffine(
        np.ascontiguousarray(astronaut), np.array([[2.0, 0, -130], [0, 2.0, -40]]), (640, 384)
    )
    stream = device.stream("faces")
    with opened(toys["s3fd"]) as s3fd, opened(toys["fan4"]) as fan4:
        networks = NetworkDetector(NetworkCall(device, s3fd, stream))
        points = NetworkLandmarks(NetworkCall(device, fan4, stream))
        by_network = observe([(0, frame), (1, frame)], networks, points)
    by_cascade = observe([(0, frame), (1, frame)], CascadeDetector(), CascadeLandmarks())
    assert by_network.frame.tolist() == by_cascade.frame.tolist() == [0, 1]
    middles = [seen.carried[:, :4].reshape(2, 2, 2).mean(1) for seen in (by_network, by_cascade)]
    np.testing.assert_allclose(*middles, atol=40)
