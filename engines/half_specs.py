"""The specs of half-precision artifacts: uint8 pictures at the edges, conversions inside the graph.

An engine for the GPU gets pictures as a frame holds them and gives them back so; a float is seen by nobody
outside. What only checks need is left out: D-Net's flow and warped picture.
"""

from __future__ import annotations

from dataclasses import replace

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.specs import DNET, ENET, LNET, RECON

HALVES = ("fp16", "bf16")
"""Half precisions; bf16 has float32's range and an eighth of fp16's resolution."""


def _picture(name: str, side: int, meaning: str) -> TensorSpec:
    return TensorSpec(name, "uint8", (BATCH, side, side, 3), 0.0, 255.0, f"BGR pixels, {meaning}")


_LIPS = TensorSpec("lips", "float16", (BATCH, 3, 96, 96), 0.0, 1.0, "BGR planes; float16 also in bf16")

_FP16_REASON = "11 significant bits at every step, float32 sums; uint8 alone limits a picture to 58.9 dB"
_BF16_REASON = "8 significant bits, eight times the rounding of fp16; for range, not for accuracy"


def _fp16(max_abs: float) -> Tolerance:
    return Tolerance(max_abs, 0.9999, _FP16_REASON, relative_l2=1e-2, psnr=50.0)


def _bf16(max_abs: float) -> Tolerance:
    return Tolerance(max_abs, 0.999, _BF16_REASON, relative_l2=5e-2, psnr=34.0)


_TOLERANCES = {
    ("fp16", "dnet"): _fp16(12.0),  # levels; noise has no smooth place where a flow error would not show
    ("fp16", "lnet"): _fp16(0.05),
    ("fp16", "enet"): _fp16(3.0),  # levels
    ("fp16", "recon"): _fp16(0.01),
    ("bf16", "dnet"): _bf16(80.0),
    ("bf16", "lnet"): _bf16(0.25),
    ("bf16", "enet"): _bf16(12.0),
    ("bf16", "recon"): _bf16(0.03),
}
"""Against the original in float32 before any rounding to uint8, over real and seeded inputs."""


def _half(
    spec: NetworkSpec, precision: str, inputs: tuple[TensorSpec, ...], output: TensorSpec
) -> NetworkSpec:
    tolerances = {output.name: _TOLERANCES[precision, spec.name]}
    return replace(spec, inputs=inputs, outputs=(output,), tolerances=tolerances)


def _specs(precision: str) -> dict[str, NetworkSpec]:
    return {
        "dnet": _half(
            DNET,
            precision,
            (_picture("image", 256, "the aligned face"), DNET.input("coefficients")),
            _picture("edited", 256, "expression neutralised"),
        ),
        "lnet": _half(
            LNET,
            precision,
            (
                LNET.input("mel"),
                _picture("face", 384, "rows 192.. are not read"),
                _picture("reference", 384, "the stabilised face"),
            ),
            _LIPS,
        ),
        "enet": _half(
            ENET,
            precision,
            (_LIPS, _picture("reference", 384, "the stabilised face")),
            _picture("enhanced", 384, "the dubbed face"),
        ),
        "recon": _half(RECON, precision, (_picture("image", 224, "aligned face"),), RECON.output("coeffs")),
    }


HALF_SPECS: dict[tuple[str, str], NetworkSpec] = {
    (name, precision): spec for precision in HALVES for name, spec in _specs(precision).items()
}
"""By network and precision."""
