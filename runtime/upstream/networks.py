"""The networks as the original's stages call them: pictures in, faces, points and pictures out.

Each class puts a network's own input and output around one `Call`, for one picture at a time, in float32. Not
safe to share between threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.engines.face_specs import BGR_MEANS
from dubstream.kernels.checks import F32, U8, check_array
from dubstream.kernels.detection import FaceRule, faces_among, fan_crop, fan_picture, whole_points
from dubstream.kernels.planes import BGR_SIGNED, BGR_UNIT, to_planes
from dubstream.runtime.faces.networks import Call
from dubstream.runtime.upstream.boxes import best_face
from dubstream.runtime.upstream.five_points import Faces
from dubstream.runtime.upstream.landmarks import I32
from dubstream.runtime.upstream.lips import reduced_faces
from dubstream.runtime.upstream.pixels import picture_of

_MEANS = np.array(BGR_MEANS, np.float32)[:, None, None]


class BestFace:
    """S3FD for pictures of one size: the face with the highest score (stages 3.3 and 5.3).

    The picture's channels are turned round, then the means of blue, green and red are subtracted in that
    order. That is right for the RGB pictures of the landmarks. The original does the same to BGR frames, so
    that its network sees red where blue was trained.

    Args:
        call: of `s3fd_spec`, float32.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, picture: U8) -> npt.NDArray[np.float64] | None:
        """The face's x1 y1 x2 y2 in pixels, float64 (4,), not clipped; None without one.

        Args:
            picture: uint8 (H, W, 3) of the network's size.
        """
        _subtract_means(picture[..., ::-1], self._call)
        found = self._call.run()
        return best_face(found["boxes"], found["scores"])


class FaceLandmarks:
    """S3FD and FAN-4: 68 whole pixels (stage 3.3).

    Args:
        boxes: S3FD for pictures of one size.
        call: of the spec ``fan4``, float32.
    """

    def __init__(self, boxes: BestFace, call: Call) -> None:
        self._boxes, self._call = boxes, call

    def __call__(self, picture: U8) -> I32 | None:
        """Landmarks of the face with the highest score, int32 (68, 2) x y; None without a face.

        Args:
            picture: uint8 (H, W, 3), taken for RGB whatever it is.

        Raises:
            InternalError: a box that no face can have, or the network failed.
        """
        box = self._boxes(picture)
        if box is None:
            return None
        crop = fan_crop(box.tolist())
        # No channel moves: "BGR" planes are those of the picture in its own order.
        to_planes(fan_picture(picture, crop), BGR_UNIT, out=self._call.input("image"))
        return whole_points(self._call.run()["heatmaps"], crop)


class FiveFaces:
    """RetinaFace for pictures of one size, a `FaceDetector` (stage 6.2).

    Args:
        call: of `retinaface_spec`, float32.
        rule: which of its boxes are faces.
    """

    def __init__(self, call: Call, rule: FaceRule) -> None:
        self._call, self._rule = call, rule

    def __call__(self, levels: F32) -> Faces:
        """The faces in float32 BGR (H, W, 3) of the network's size, in levels."""
        _subtract_means(levels, self._call)
        found = self._call.run()
        boxes, scores, points = (found[name] for name in ("boxes", "scores", "points"))
        kept = faces_among(boxes, scores, self._rule)
        return Faces(boxes[kept], scores[kept], points[kept])


class Lips:
    """L-Net and E-Net (stage 7.1).

    Args:
        lnet, enet: of the specs of those names, float32.
    """

    def __init__(self, lnet: Call, enet: Call) -> None:
        self._lnet, self._enet = lnet, enet

    def __call__(self, mel: F32, faces: F32) -> F32:
        """The predicted face, float32 BGR (3, 384, 384), not clamped; the next call overwrites it.

        Args:
            mel: float32 (1, 80, 16).
            faces: float32 BGR (6, 384, 384) in [0, 1], from `lip_input`.
        """
        self._lnet.input("mel")[...] = mel
        self._lnet.input("faces")[...] = reduced_faces(faces)
        self._enet.input("lips")[...] = self._lnet.run()["lips"]
        self._enet.input("reference")[...] = faces[3:]
        return np.asarray(self._enet.run()["enhanced"], np.float32)


class Planes:
    """A network from planes to planes: GPEN, GFPGAN (6.4, 7.4), or, with action units, GANimation (7.2).

    Args:
        call: the network.
        output: name of the wanted output.
        more: its other inputs, the same for every picture.
    """

    def __init__(self, call: Call, output: str, **more: F32) -> None:
        self._call, self._output = call, output
        for name, value in more.items():
            call.input(name)[...] = value

    def __call__(self, planes: F32) -> F32:
        """float32 (3, S, S) to the same; the next call overwrites it."""
        image = self._call.input("image")
        check_array(planes, "planes", image.shape, np.float32)
        image[...] = planes
        return np.asarray(self._call.run()[self._output], np.float32)


class Classes:
    """ParseNet, a `Parser` (stages 6.4, 7.5).

    Args:
        call: of the spec ``parsenet``, float32.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, planes: F32) -> U8:
        """The most probable class of every pixel, uint8 (512, 512); the next call overwrites it."""
        self._call.input("image")[...] = planes
        return np.asarray(self._call.run()["classes"], np.uint8)


class Coefficients:
    """ReconNet (stage 3.5).

    Args:
        call: of the spec ``recon``, float32.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, aligned: U8) -> F32:
        """257 numbers, float32 (257,), own memory, of a cut of `recon_input`: uint8 RGB (224, 224, 3)."""
        to_planes(aligned, BGR_UNIT, out=self._call.input("image"))  # in the picture's own order, RGB
        return self._call.run()["coeffs"].astype(np.float32)


class Stabiliser:
    """D-Net (stage 3.7).

    Args:
        call: of the spec ``dnet``, float32.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, source: U8, window: F32) -> U8:
        """The source with the driving window's expression, uint8 BGR (256, 256, 3), truncated.

        Args:
            source: uint8 RGB (256, 256, 3), from `source_picture`.
            window: float32 (73, 26), from `driving_window`.
        """
        to_planes(source, BGR_SIGNED, out=self._call.input("image"))  # in the picture's own order, RGB
        self._call.input("coefficients")[...] = window
        return picture_of(self._call.run()["edited"], truncate=True)


def _subtract_means(picture: npt.NDArray[np.number], call: Call) -> None:
    """Levels (H, W, 3) less the means, in the order of the channels, as the network's planes."""
    image = call.input("image")
    if picture.shape != (*image.shape[1:], 3):
        raise InternalError(f"picture {picture.shape}, expected ({image.shape[1]}, {image.shape[2]}, 3)")
    np.subtract(picture.transpose(2, 0, 1), _MEANS, out=image)
