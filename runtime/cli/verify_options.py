"""Options that `dubstream verify video` and `verify dub` share: limits, the face, the output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dubstream.runtime.review.verdict import Thresholds

FACE = "Face"
_LIMITS = "Limits, with the defaults for --expect same"
_same = Thresholds()


def _limit(flag: str, text: str, default: float | None) -> Any:
    shown = "not judged" if default is None else f"{default:g}"
    return typer.Option(flag, help=text, show_default=shown, rich_help_panel=_LIMITS)


MinSsim = Annotated[float | None, _limit("--min-ssim", "Mean SSIM of frames.", _same.min_ssim)]
MinMouth = Annotated[
    float | None, _limit("--min-mouth-ssim", "Mean SSIM of mouth windows.", _same.min_mouth_ssim)
]
MinLips = Annotated[
    float | None,
    _limit("--min-lip-correlation", "Correlation of lip motion over time.", _same.min_lip_correlation),
]
MinEnergy = Annotated[
    float | None, _limit("--min-lip-energy", "Lip motion of B over A's, at least.", _same.min_lip_energy)
]
MaxEnergy = Annotated[
    float | None, _limit("--max-lip-energy", "Lip motion of B over A's, at most.", _same.max_lip_energy)
]
MinWorst = Annotated[
    float | None, _limit("--min-worst-ssim", "SSIM of the worst frame.", _same.min_worst_ssim)
]
MinWorstMouth = Annotated[
    float | None,
    _limit("--min-worst-mouth-ssim", "SSIM of the worst mouth window.", _same.min_worst_mouth_ssim),
]
MinPsnr = Annotated[float | None, _limit("--min-psnr", "Mean PSNR, dB.", _same.min_psnr)]
MaxSharpness = Annotated[
    float | None,
    _limit("--max-sharpness-loss", "CPBD of the mouth, A - B.", _same.max_sharpness_loss),
]
MaxSeam = Annotated[
    float | None, _limit("--max-seam", "Step at the window's outline, levels.", _same.max_seam)
]
MaxFlicker = Annotated[
    float | None, _limit("--max-flicker", "Brightness that jumps, levels.", _same.max_flicker)
]
MaxBackground = Annotated[
    float | None,
    _limit("--max-background-share", "Pixels changed outside the window.", _same.max_background_share),
]
MaxOffset = Annotated[
    float | None, _limit("--max-av-offset", "Sound against picture, seconds.", _same.max_av_offset)
]
MaxLength = Annotated[
    float | None, _limit("--max-length-gap", "Length of the sound, seconds.", _same.max_length_gap)
]
MaxSound = Annotated[
    float | None, _limit("--max-sound-difference", "Loudness over time.", _same.max_sound_difference)
]
MaxFrames = Annotated[
    int | None, _limit("--max-frame-gap", "Frames more or fewer than A.", _same.max_frame_gap)
]
Level = Annotated[
    int,
    typer.Option(
        "--background-level", help="Levels up to which a background pixel is equal.", rich_help_panel=_LIMITS
    ),
]
Face = Annotated[
    str,
    typer.Option(
        "--face",
        help="largest, center, INDEX from the left, x,y,w,h, or a PICTURE of the person.",
        rich_help_panel=FACE,
    ),
]
Gap = Annotated[
    int, typer.Option("--face-gap", help="Frames without a face that are bridged.", rich_help_panel=FACE)
]
Pads = Annotated[
    str, typer.Option("--pads", help="top,bottom,left,right added to the face box.", rich_help_panel=FACE)
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
Report = Annotated[
    Path | None, typer.Option("--report", help="HTML file to write, with pictures and plots.", metavar="FILE")
]
