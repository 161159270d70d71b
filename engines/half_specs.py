"""The specs of half-precision artifacts: uint8 pictures at the edges, conversions inside the graph.

An engine for the GPU gets pictures as a frame holds them and gives them back so; a float is seen by nobody
outside. What only checks need is left out: D-Net's flow and warped picture.
"""

from __future__ import annotations

from dataclasses import replace

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.face_specs import (
    DETECTOR_SIZE,
    FAN4,
    GANIMATION,
    RETINAFACE,
    S3FD,
)
from dubstream.engines.specs import DNET, LNET, RECON, SPECS

HALVES = ("fp16", "bf16")
"""Half precisions; bf16 has float32's range and an eighth of fp16's resolution."""


def _picture(name: str, side: int, meaning: str) -> TensorSpec:
    return _pixels(name, (side, side), meaning)


def _pixels(name: str, size: tuple[int, int], meaning: str) -> TensorSpec:
    return TensorSpec(name, "uint8", (BATCH, *size, 3), 0.0, 255.0, f"BGR pixels, {meaning}")


_LIPS = TensorSpec("lips", "float16", (BATCH, 3, 96, 96), 0.0, 1.0, "BGR planes; float16 also in bf16")
_HEATMAPS = replace(FAN4.output("heatmaps"), dtype="float16")
_MASKS = TensorSpec(
    "masks", "uint8", (BATCH, 512, 512, 2), 0.0, 255.0, "probability of the face and of the mouth, times 255"
)

_FP16_REASON = "11 significant bits at every step, float32 sums; uint8 alone limits a picture to 58.9 dB"
_BF16_REASON = "8 significant bits, eight times the rounding of fp16; for range, not for accuracy"


def _fp16(max_abs: float) -> Tolerance:
    return Tolerance(max_abs, 0.9999, _FP16_REASON, relative_l2=1e-2, psnr=50.0)


def _bf16(max_abs: float) -> Tolerance:
    return Tolerance(max_abs, 0.999, _BF16_REASON, relative_l2=5e-2, psnr=34.0)


_FP16 = {
    # Levels: 12 are 15 times the root mean square that 50 dB leave. The largest error of a generator came to
    # 3 to 16 times its own: D-Net's flow moves edges, GFPGAN's values go ten times beyond black and white.
    "dnet": {"edited": _fp16(12.0)},
    "lnet": {"lips": _fp16(0.05)},
    "enet": {"enhanced": _fp16(3.0)},  # levels
    "recon": {"coeffs": _fp16(0.01)},
    "s3fd": {"boxes": _fp16(1.0), "scores": _fp16(0.01)},
    "retinaface": {"boxes": _fp16(1.0), "scores": _fp16(0.01), "points": _fp16(1.0)},
    "fan4": {"heatmaps": _fp16(0.01)},
    "gfpgan": {"restored": _fp16(12.0)},
    "gpen": {"restored": _fp16(12.0)},  # at most 2 measured, hardly more than bytes: GFPGAN comes to 8
    # Levels, 12 measured, where inputs are black and white noise. Seeded logits reach 178 there, in which a
    # thousandth is 0.18, and a pixel between two classes makes levels of its log-odds at 255 / 4 to one.
    "parsenet": {"masks": _fp16(16.0)},
    "ganimation": {"fused": _fp16(3.0)},
}
_BF16 = {
    "dnet": {"edited": _bf16(80.0)},
    "lnet": {"lips": _bf16(0.25)},
    "enet": {"enhanced": _bf16(12.0)},
    "recon": {"coeffs": _bf16(0.03)},
    "s3fd": {"boxes": _bf16(8.0), "scores": _bf16(0.08)},
    "retinaface": {"boxes": _bf16(8.0), "scores": _bf16(0.08), "points": _bf16(8.0)},
    "fan4": {"heatmaps": _bf16(0.08)},
    "gfpgan": {"restored": _bf16(96.0)},
    "gpen": {"restored": _bf16(96.0)},
    "parsenet": {"masks": _bf16(160.0)},
    "ganimation": {"fused": _bf16(24.0)},
}
_TOLERANCES = {"fp16": _FP16, "bf16": _BF16}
"""Against the original in float32 before any rounding to uint8, over real and seeded inputs."""


def _half(
    spec: NetworkSpec, precision: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> NetworkSpec:
    tolerances = _TOLERANCES[precision][spec.name]
    return replace(spec, inputs=inputs, outputs=outputs, tolerances=tolerances)


_RESTORED = (_picture("image", 512, "aligned face"),), (_picture("restored", 512, "the face restored"),)

_EDGES = {
    "dnet": (
        (_picture("image", 256, "the aligned face"), DNET.input("coefficients")),
        (_picture("edited", 256, "expression neutralised"),),
    ),
    "lnet": (
        (
            LNET.input("mel"),
            _picture("face", 384, "rows 192.. are not read"),
            _picture("reference", 384, "the stabilised face"),
        ),
        (_LIPS,),
    ),
    "enet": (
        (_LIPS, _picture("reference", 384, "the stabilised face")),
        (_picture("enhanced", 384, "the dubbed face"),),
    ),
    "recon": ((_picture("image", 224, "aligned face"),), RECON.outputs),
    "s3fd": ((_pixels("image", DETECTOR_SIZE, "the frame, reduced"),), S3FD.outputs),
    "retinaface": ((_pixels("image", DETECTOR_SIZE, "the frame, reduced"),), RETINAFACE.outputs),
    "fan4": ((_picture("image", 256, "face crop"),), (_HEATMAPS,)),
    "gfpgan": _RESTORED,
    "gpen": _RESTORED,
    "parsenet": ((_picture("image", 512, "aligned face"),), (_MASKS,)),
    "ganimation": (
        (_picture("image", 384, "the face"), GANIMATION.input("aus")),
        (_picture("fused", 384, "the edited face"),),
    ),
}
"""Inputs and outputs, the same in both precisions."""

HALF_SPECS: dict[tuple[str, str], NetworkSpec] = {
    (name, precision): _half(SPECS[name], precision, *edges)
    for precision in HALVES
    for name, edges in _EDGES.items()
}
"""By network and precision."""
