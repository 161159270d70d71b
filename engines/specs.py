"""The networks of VideoReTalking, as specs (paper sections 3.1 to 3.3; 3DMM: Deng et al. 2019b).

The seven around them (detectors, landmarks, finish) are in `dubstream.engines.face_specs`.
"""

from __future__ import annotations

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import (
    FAN4,
    GANIMATION,
    GFPGAN,
    GPEN,
    PARSENET,
    RETINAFACE,
    S3FD,
    detector_spec,
)

DRIVING_WINDOW = 26
"""Frames of 3DMM coefficients D-Net sees, offsets -13 to +12 (27 in the network's own examples)."""

DRIVING_ROWS = 73
"""exp 64, angle 3, trans 3, crop (s, tx, ty) 3."""

_FP32 = Tolerance(1e-4, 0.999999, "float32 kernels that sum in another order; measured below 4e-5")
_FP32_DNET = Tolerance(1e-3, 0.999999, "instance norms amplify rounding; measured below 3e-4")

DNET = NetworkSpec(
    name="dnet",
    title="expression-neutralising reenactment",
    inputs=(
        TensorSpec("image", "float32", (BATCH, 3, 256, 256), -1.0, 1.0, "RGB planes"),
        TensorSpec(
            "coefficients",
            "float32",
            (BATCH, DRIVING_ROWS, DRIVING_WINDOW),
            None,
            None,
            "driving 3DMM window: rows exp 0:64, angle 64:67, trans 67:70, s tx ty 70:73",
        ),
    ),
    outputs=(
        TensorSpec("edited", "float32", (BATCH, 3, 256, 256), -1.0, 1.0, "RGB planes"),
        TensorSpec("warped", "float32", (BATCH, 3, 256, 256), -1.0, 1.0, "RGB planes, the warped input"),
        TensorSpec("flow", "float32", (BATCH, 2, 64, 64), None, None, "pixels of the quarter-size grid"),
    ),
    max_batch=16,
    tolerances={"edited": _FP32_DNET, "warped": _FP32_DNET, "flow": _FP32_DNET},
    gmacs=44.2,
    checkpoint="DNet.pt",
    licence="Apache-2.0 repository; trained on VoxCeleb",
)

LNET = NetworkSpec(
    name="lnet",
    title="lip sync",
    inputs=(
        TensorSpec("mel", "float32", (BATCH, 1, 80, 16), -4.0, 4.0, "0.2 s of normalised mel"),
        TensorSpec(
            "faces",
            "float32",
            (BATCH, 6, 96, 96),
            0.0,
            1.0,
            "BGR planes: 0-2 the target face, lower half zero; 3-5 the stabilised reference",
        ),
    ),
    outputs=(TensorSpec("lips", "float32", (BATCH, 3, 96, 96), 0.0, 1.0, "BGR planes"),),
    max_batch=16,
    tolerances={"lips": _FP32},
    gmacs=27.7,
    checkpoint="LNet.pth",
    licence="Apache-2.0 repository; trained on LRS2",
)

ENET = NetworkSpec(
    name="enet",
    title="identity-aware enhancement",
    inputs=(
        TensorSpec("lips", "float32", (BATCH, 3, 96, 96), 0.0, 1.0, "L-Net's output, BGR planes"),
        TensorSpec("reference", "float32", (BATCH, 3, 384, 384), 0.0, 1.0, "BGR planes, stabilised face"),
    ),
    outputs=(
        TensorSpec(
            "enhanced", "float32", (BATCH, 3, 384, 384), None, None, "BGR planes; clamp to [0, 1] to show"
        ),
    ),
    max_batch=12,
    tolerances={"enhanced": _FP32},
    gmacs=137.7,
    checkpoint="ENet.pth",
    licence="Apache-2.0 repository; trained on LRS2 enhanced with GPEN (non-commercial)",
)

RECON = NetworkSpec(
    name="recon",
    title="3DMM coefficient regressor",
    inputs=(TensorSpec("image", "float32", (BATCH, 3, 224, 224), 0.0, 1.0, "RGB planes, aligned face"),),
    outputs=(
        TensorSpec(
            "coeffs",
            "float32",
            (BATCH, 257),
            None,
            None,
            "id 0:80, exp 80:144, tex 144:224, angle 224:227 (radians), gamma 227:254, trans 254:257",
        ),
    ),
    max_batch=32,
    tolerances={"coeffs": _FP32},
    gmacs=4.1,
    checkpoint="face3d_pretrain_epoch_20.pth",
    licence="BFM09 derived; see the model's own terms",
)

SPECS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (DNET, LNET, ENET, RECON, S3FD, RETINAFACE, FAN4, GFPGAN, GPEN, PARSENET, GANIMATION)
}
"""All networks by name."""

CORE = (DNET.name, LNET.name, ENET.name, RECON.name)
"""What every dub needs, and what commands mean where no network is named."""


def spec_of(name: str, precision: str = "fp32") -> NetworkSpec:
    """The spec of a network's artifact in `precision`.

    Args:
        name: one of `SPECS`, or a detector of another size: ``s3fd_1280x720``, width first.
        precision: ``fp32``; for those of `SPECS` also a half precision.

    Raises:
        UsageError: an unknown name or precision.
    """
    from dubstream.engines.half_specs import HALF_SPECS, HALVES  # which derives its specs from these

    spec = SPECS.get(name) or detector_spec(name)
    if spec is None:
        raise UsageError(
            f"unknown network '{name}', expected one of {', '.join(SPECS)}, or a detector of another size "
            "such as s3fd_1280x720"
        )
    if precision == "fp32":
        return spec
    if precision in HALVES and name not in SPECS:
        raise UsageError(f"{name} in {precision}, expected fp32: detectors of other sizes have no other")
    if precision not in HALVES or (name, precision) not in HALF_SPECS:
        raise UsageError(f"unknown precision '{precision}', expected one of fp32, {', '.join(HALVES)}")
    return HALF_SPECS[name, precision]
