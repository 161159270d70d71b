"""The auxiliary face networks, as specs: where a face is, what belongs to it, how it is finished.

Only the batch is symbolic in an artifact, so a detector's picture has one size, chosen when it is exported.
"""

from __future__ import annotations

import re

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.errors import UsageError

DETECTOR_SIZE = (384, 640)
"""Height and width of the default detectors: a frame of 16:9 reduced to 640 x 360 and padded below."""

SMALLEST_SIDE = 32
"""Pixels; S3FD's maps vanish in smaller pictures."""

BGR_MEANS = (104.0, 117.0, 123.0)
"""Subtracted from blue, green and red for both detectors."""

RETINAFACE_STRIDES = (8, 16, 32)
"""Pixels per cell of RetinaFace's maps; two priors a cell."""

_LOW, _HIGH = -max(BGR_MEANS), 255.0 - min(BGR_MEANS)
_PIXELS = Tolerance(1e-2, 0.999999, "pixels; priors of 512 multiply the maps' rounding; measured below 1e-3")
_SCORES = Tolerance(1e-4, 0.999999, "float32 kernels that sum in another order; measured below 1e-5")

S3FD_GMACS = (3.0755e-4, 6.422e-3)
"""Per pixel, and per cell of the fourth map, whose padding makes it larger than the picture suggests."""

RETINAFACE_GMACS = 1.0807e-4
"""Per pixel; exact where both sides are multiples of 32."""


def s3fd_spec(height: int, width: int) -> NetworkSpec:
    """S3FD for pictures of one size.

    Returns:
        The spec, called ``s3fd`` at `DETECTOR_SIZE` and ``s3fd_<width>x<height>`` elsewhere.

    Raises:
        UsageError: a side below `SMALLEST_SIDE` pixels.
    """
    priors = sum(rows * columns for rows, columns in s3fd_maps(height, width))
    rows, columns = s3fd_maps(height, width)[3]
    return NetworkSpec(
        name=_sized("s3fd", height, width),
        title="face detector, six scales",
        inputs=(_picture(height, width),),
        outputs=(_boxes(priors), _face_scores(priors)),
        max_batch=8,
        tolerances={"boxes": _PIXELS, "scores": _SCORES},
        gmacs=round(S3FD_GMACS[0] * height * width + S3FD_GMACS[1] * rows * columns, 1),
        checkpoint="s3fd-619a316812.pth",
        licence="BSD-3-Clause code (face-alignment); trained on WIDER FACE",
    )


def retinaface_spec(height: int, width: int) -> NetworkSpec:
    """RetinaFace with a ResNet-50 for pictures of one size; name and errors as for `s3fd_spec`."""
    priors = 2 * sum(rows * columns for rows, columns in retinaface_maps(height, width))
    points = TensorSpec(
        "points",
        "float32",
        (BATCH, priors, 5, 2),
        None,
        None,
        "x y in pixels: left eye, right eye, nose, left and right mouth corner, as seen in the picture",
    )
    return NetworkSpec(
        name=_sized("retinaface", height, width),
        title="face detector with five points",
        inputs=(_picture(height, width),),
        outputs=(_boxes(priors), _face_scores(priors), points),
        max_batch=8,
        tolerances={"boxes": _PIXELS, "scores": _SCORES, "points": _PIXELS},
        gmacs=round(RETINAFACE_GMACS * height * width, 1),
        checkpoint="RetinaFace-R50.pth",
        licence="distributed with GPEN: non-commercial use only",
    )


def detector_spec(name: str) -> NetworkSpec | None:
    """The spec of a detector for another size than `DETECTOR_SIZE` by its name, e.g. ``s3fd_1280x720``.

    Returns:
        The spec; None where `name` is not of that form.

    Raises:
        UsageError: a size the detector cannot have, or `DETECTOR_SIZE`, whose detectors carry no size.
    """
    found = re.fullmatch(r"(s3fd|retinaface)_([1-9]\d{0,4})x([1-9]\d{0,4})", name)
    if found is None:
        return None
    kind, width, height = found[1], int(found[2]), int(found[3])
    spec = s3fd_spec(height, width) if kind == "s3fd" else retinaface_spec(height, width)
    if spec.name != name:
        raise UsageError(f"'{name}' is called '{spec.name}', as that is the default size")
    return spec


def s3fd_maps(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of S3FD's six maps, finest first, for a picture; errors as for `s3fd_spec`."""
    _check_size("s3fd", height, width)
    down, across = _s3fd_sides(height), _s3fd_sides(width)
    return tuple(zip(down, across, strict=True))


def retinaface_maps(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of RetinaFace's three maps, finest first; errors as for `s3fd_spec`."""
    _check_size("retinaface", height, width)
    return tuple((-(-height // stride), -(-width // stride)) for stride in RETINAFACE_STRIDES)


def _s3fd_sides(side: int) -> tuple[int, ...]:
    padded = side // 32 + 4  # fc6 pads its 3x3 window by 3
    halved = (padded + 1) // 2
    return side // 4, side // 8, side // 16, padded, halved, (halved + 1) // 2


def _check_size(name: str, height: int, width: int) -> None:
    if min(height, width) < SMALLEST_SIDE:
        raise UsageError(
            f"{name} for pictures of {width}x{height}, expected sides from {SMALLEST_SIDE} pixels"
        )


def _sized(name: str, height: int, width: int) -> str:
    return name if (height, width) == DETECTOR_SIZE else f"{name}_{width}x{height}"


def _picture(height: int, width: int) -> TensorSpec:
    meaning = f"BGR planes, 0..255 minus {BGR_MEANS}"
    return TensorSpec("image", "float32", (BATCH, 3, height, width), _LOW, _HIGH, meaning)


def _boxes(priors: int) -> TensorSpec:
    meaning = "x1 y1 x2 y2 in pixels of the picture, not clipped; one a prior, before suppression"
    return TensorSpec("boxes", "float32", (BATCH, priors, 4), None, None, meaning)


def _face_scores(priors: int) -> TensorSpec:
    return TensorSpec("scores", "float32", (BATCH, priors), 0.0, 1.0, "probability of a face, one a prior")


S3FD = s3fd_spec(*DETECTOR_SIZE)

RETINAFACE = retinaface_spec(*DETECTOR_SIZE)

FAN4 = NetworkSpec(
    name="fan4",
    title="68 face landmarks",
    inputs=(TensorSpec("image", "float32", (BATCH, 3, 256, 256), 0.0, 1.0, "RGB planes, face crop"),),
    outputs=(
        TensorSpec(
            "heatmaps", "float32", (BATCH, 68, 64, 64), None, None, "a peak at each landmark, 4 pixels a cell"
        ),
    ),
    max_batch=16,
    tolerances={"heatmaps": _SCORES},
    gmacs=24.8,
    checkpoint="2DFAN4-cd938726ad.zip",
    licence="BSD-3-Clause code (face-alignment); trained on 300-W data (non-commercial)",
)

# An eighth of a level as the picture is shown. Rounding is in proportion to values, evenly over the picture:
# 5e-6 of the largest on plausible inputs (8e-5), 1.5e-5 where they are black and white at random (6e-4).
_GFPGAN = Tolerance(1e-3, 0.999999, "values to 13, and more where inputs are extreme: measured 4e-4 there")
_CLOSE = Tolerance(2e-4, 0.999999, "ParseNet's own logits in float32 are 1e-4 from float64")

_RESTORER_INPUT = TensorSpec("image", "float32", (BATCH, 3, 512, 512), -1.0, 1.0, "RGB planes, aligned face")
_RESTORER_OUTPUT = TensorSpec(
    "restored", "float32", (BATCH, 3, 512, 512), None, None, "RGB planes; clamp to [-1, 1] to show"
)

GFPGAN = NetworkSpec(
    name="gfpgan",
    title="face restoration",
    inputs=(_RESTORER_INPUT,),
    outputs=(_RESTORER_OUTPUT,),
    max_batch=8,
    tolerances={"restored": _GFPGAN},
    gmacs=144.2,
    checkpoint="GFPGANv1.3.pth",
    licence="Apache-2.0; trained on FFHQ (non-commercial)",
)

GPEN = NetworkSpec(
    name="gpen",
    title="face restoration of the references",
    inputs=(_RESTORER_INPUT,),
    outputs=(_RESTORER_OUTPUT,),
    max_batch=8,
    tolerances={"restored": _CLOSE},
    gmacs=139.2,
    checkpoint="GPEN-BFR-512.pth",
    licence="non-commercial use only, code and weights",
)

PARSENET = NetworkSpec(
    name="parsenet",
    title="face parsing",
    inputs=(_RESTORER_INPUT,),
    outputs=(
        TensorSpec(
            "masks",
            "float32",
            (BATCH, 2, 512, 512),
            0.0,
            1.0,
            "probabilities of the face (classes 1-7, 10-12) and of the mouth (10-12)",
        ),
        TensorSpec("classes", "uint8", (BATCH, 512, 512), 0.0, 18.0, "the most probable class of a pixel"),
    ),
    max_batch=8,
    tolerances={
        "masks": _CLOSE,
        "classes": Tolerance(18.0, 0.9999, "one pixel in 10 000 may be of any other class", relative_l2=1e-2),
    },
    gmacs=177.7,
    checkpoint="ParseNet-latest.pth",
    licence="distributed with GPEN: non-commercial use only",
)

GANIMATION = NetworkSpec(
    name="ganimation",
    title="action units of the upper face",
    inputs=(
        TensorSpec("image", "float32", (BATCH, 3, 128, 128), -1.0, 1.0, "BGR planes"),
        TensorSpec(
            "aus",
            "float32",
            (BATCH, 17),
            0.0,
            1.0,
            "intensities of AU 01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45",
        ),
    ),
    outputs=(
        TensorSpec("color", "float32", (BATCH, 3, 128, 128), -1.0, 1.0, "BGR planes"),
        TensorSpec("attention", "float32", (BATCH, 1, 128, 128), 0.0, 1.0, "share of the image that stays"),
        TensorSpec("fused", "float32", (BATCH, 3, 128, 128), -1.0, 1.0, "BGR planes, the edited face"),
    ),
    max_batch=16,
    tolerances={"color": _SCORES, "attention": _SCORES, "fused": _SCORES},
    gmacs=9.8,
    checkpoint="30_net_gen.pth",
    licence="Apache-2.0 repository; training data not stated there",
)
