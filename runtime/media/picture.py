"""Still pictures that an option names: PNG or JPEG, upright, within the limits."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import MediaError
from dubstream.runtime.media.guard import reading, show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import check_regular_file

_FORMATS = ("PNG", "JPEG")
_LARGEST_FILE = 64 << 20  # bytes


def read_picture(path: Path, limits: MediaLimits) -> npt.NDArray[np.uint8]:
    """Read a picture as it is meant to be seen: uint8 BGR (H, W, 3), contiguous.

    The size is checked before a pixel is decoded; the camera's orientation is applied, transparency dropped.

    Raises:
        MediaError: no such file, no PNG or JPEG, or a damaged one.
        LimitError: more than `max_pixels`.
    """
    from PIL import Image, ImageOps

    absolute = check_regular_file(path)
    size = absolute.stat().st_size
    if size > _LARGEST_FILE:
        raise MediaError(f"{show(path)} has {size} bytes, expected a picture of {_LARGEST_FILE} or fewer")
    with reading(path, "read"), warnings.catch_warnings():
        # Pillow's own warnings about size: ours is the limit that counts.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(absolute.read_bytes()), formats=_FORMATS) as image:
            limits.check_most("max_pixels", image.width * image.height, f"pixels of {show(path)}")
            upright = ImageOps.exif_transpose(image) or image
            rgb = np.asarray(upright.convert("RGB"), dtype=np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])
