"""`dubstream.export.pictures` for the auxiliary face networks: uint8 pictures at their artifacts' edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubstream.engines.face_specs import BGR_MEANS
from dubstream.export.pictures import (
    MIDDLE,
    WHITE,
    PictureNetwork,
    clamped,
    planes,
    shown,
    swapped,
)


class DetectorPictures(PictureNetwork):
    """uint8 (N, H, W, 3) to a detector's float32 outputs, S3FD's or RetinaFace's; nothing is rounded.

    Both want BGR. Where the original hands S3FD red first (whole frames), its caller turns the picture round.
    """

    def levels(self, image: Tensor) -> tuple[Tensor, ...]:
        means = torch.tensor(BGR_MEANS, dtype=self.dtype, device=image.device)[:, None, None]
        outputs: tuple[Tensor, ...] = self.core(planes(image, self.dtype) - means)
        return outputs

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.levels(image)


class FANPictures(PictureNetwork):
    """uint8 (N, 256, 256, 3) to float16 heat maps (N, 68, 64, 64), also in bf16: half the download."""

    def levels(self, image: Tensor) -> Tensor:
        heatmaps: Tensor = self.core(swapped(planes(image, self.dtype) / WHITE))
        return heatmaps

    def forward(self, image: Tensor) -> Tensor:
        return self.levels(image).to(torch.float16)


class RestorerPictures(PictureNetwork):
    """uint8 (N, 512, 512, 3) to uint8 (N, 512, 512, 3), for GFPGAN and GPEN."""

    def levels(self, image: Tensor) -> Tensor:
        restored: Tensor = self.core(swapped(_signed(planes(image, self.dtype))))
        return clamped(swapped(restored) * MIDDLE + MIDDLE)

    def forward(self, image: Tensor) -> Tensor:
        return shown(self.levels(image))


class ParseNetPictures(PictureNetwork):
    """uint8 (N, 512, 512, 3) to masks uint8 (N, 512, 512, 2): probability 0..255 of face and of mouth.

    Two bytes a pixel go down. Classes are not among them: probabilities say more to who feathers a mask.
    """

    def levels(self, image: Tensor) -> Tensor:
        masks: Tensor = self.core(swapped(_signed(planes(image, self.dtype))))[0]
        return masks * WHITE

    def forward(self, image: Tensor) -> Tensor:
        return shown(self.levels(image))


class GANimationPictures(PictureNetwork):
    """uint8 (N, 384, 384, 3) and float32 action units (N, 17) to uint8 (N, 384, 384, 3).

    The network sees a third of the size, by bilinear reduction without antialias, which takes the middle
    pixel of every 3x3 square. Colour and attention are enlarged and meet the picture at its full size: what
    attention keeps is as sharp as it was. The original enlarges the result.
    """

    STEP = 3

    def levels(self, image: Tensor, aus: Tensor) -> Tensor:
        whole = planes(image, self.dtype)
        small = _signed(whole)[:, :, self.STEP // 2 :: self.STEP, self.STEP // 2 :: self.STEP]
        color, attention, _ = self.core(small, aus.to(self.dtype))
        color, attention = (
            F.interpolate(plane, scale_factor=float(self.STEP), mode="bilinear", align_corners=False)
            for plane in (color * MIDDLE + MIDDLE, attention)
        )
        return clamped(attention * whole + (1 - attention) * color)

    def forward(self, image: Tensor, aus: Tensor) -> Tensor:
        return shown(self.levels(image, aus))


def _signed(levels: Tensor) -> Tensor:
    return (levels - MIDDLE) / MIDDLE
