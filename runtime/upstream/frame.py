"""One frame through the original's stages 5 to 7, with networks as callables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubstream.kernels.checks import F32, U8
from dubstream.runtime.upstream.enhancement import (
    Parser,
    Restorer,
    blend_in_box,
    face_layer,
    mix,
)
from dubstream.runtime.upstream.five_points import FaceDetector, detect_for_enhancement
from dubstream.runtime.upstream.lips import (
    face_at,
    lip_input,
    paste_face,
    upper_face_input,
    upper_face_planes,
    with_upper_face,
)
from dubstream.runtime.upstream.mouth import blend_mouth, mouth_mask, restore_centre_face
from dubstream.runtime.upstream.references import reference_frame


@dataclass(frozen=True, kw_only=True)
class ReferenceNetworks:
    """The networks that a stabilised picture passes.

    Attributes:
        faces: RetinaFace with `RETINAFACE_RULE`.
        restore_reference: GPEN.
        parse: ParseNet.
    """

    faces: FaceDetector
    restore_reference: Restorer
    parse: Parser


@dataclass(frozen=True, kw_only=True)
class FrameNetworks:
    """The networks that a frame passes once its reference is made.

    Attributes:
        lips: L-Net and E-Net: mel window float32 (1, 80, 16) and faces float32 BGR (6, 384, 384) in [0, 1],
            to float32 BGR (3, 384, 384).
        faces: RetinaFace with `RETINAFACE_RULE`.
        strict_faces: RetinaFace with `RETINAFACE_STRICT_RULE`.
        restore_mouth: GFPGAN.
        parse: ParseNet.
        edit_upper_face: GANimation with its action units: float32 BGR (3, 128, 128) in [-1, 1] to the same;
            None leaves the upper face as it is.
    """

    lips: Callable[[F32, F32], F32]
    faces: FaceDetector
    strict_faces: FaceDetector
    restore_mouth: Restorer
    parse: Parser
    edit_upper_face: Callable[[F32], F32] | None = None


@dataclass(frozen=True, kw_only=True)
class UpstreamNetworks(ReferenceNetworks, FrameNetworks):
    """All networks of stages 5 to 7; the detectors take pictures of several sizes then.

    Attributes:
        landmarks: S3FD and FAN-4 on a uint8 (256, 256, 3) picture: int32 (68, 2) whole pixels, -1 without a
            face. They are handed BGR and treat it as RGB, as in the original.
    """

    landmarks: Callable[[U8], npt.NDArray[np.int32]]


def enhanced_reference(stabilised: U8, networks: ReferenceNetworks) -> U8:
    """The stabilised face through GPEN (stage 5.1); unchanged where no face is found in it.

    Args:
        stabilised: uint8 BGR (256, 256, 3), D-Net's picture.
        networks: GPEN, and those around it.

    Returns:
        uint8 BGR (256, 256, 3).
    """
    faces = detect_for_enhancement(stabilised, networks.faces)
    layer = face_layer(stabilised, faces, networks.parse, networks.restore_reference)
    return stabilised.copy() if layer is None else mix(layer, stabilised)


def synthesised_frame(
    frame: U8,
    reference: U8,
    face_box: Sequence[int],
    mel: F32,
    networks: FrameNetworks,
    *,
    replace_upper_face: bool = False,
) -> U8:
    """The lip network's face in its frame (stages 5.4 to 7.3).

    Args:
        frame: uint8 BGR (H, W, 3).
        reference: the same with the stabilised face.
        face_box: x1, y1, x2, y2 inside the frame.
        mel: float32 (1, 80, 16).
        networks: `lips` and, if the upper face is replaced, `edit_upper_face` are called.
        replace_upper_face: the original's `--without_rl1`. Without it the network's upper half stays, and an
            edit of the upper face has no effect: the original computes it all the same, this does not.

    Returns:
        uint8 BGR (H, W, 3), own memory.
    """
    given = lip_input(frame, reference, face_box)
    predicted = np.clip(networks.lips(mel, given), 0, 1)
    if replace_upper_face:
        predicted = with_upper_face(predicted, given, _upper_face(face_at(frame, face_box), networks))
    return paste_face(frame, predicted, face_box)


def finished_frame(synthesised: U8, frame: U8, face_box: Sequence[int], networks: FrameNetworks) -> U8:
    """Mouth restoration and both blends (stages 7.4 to 7.6).

    Args:
        synthesised: uint8 BGR (H, W, 3), from `synthesised_frame`.
        frame: uint8 BGR (H, W, 3), the source.
        face_box: x1, y1, x2, y2 inside the frame.
        networks: `faces`, `strict_faces`, `restore_mouth` and `parse` are called.

    Returns:
        uint8 BGR (H, W, 3). A copy of the source where the last detection finds no face: the original
        stops there.
    """
    levels = synthesised.astype(np.float32)
    restored = restore_centre_face(synthesised, networks.strict_faces(levels), networks.restore_mouth)
    blended = blend_mouth(restored, synthesised, mouth_mask(restored, face_box, networks.parse))
    layer = face_layer(blended, detect_for_enhancement(blended, networks.faces), networks.parse)
    return frame.copy() if layer is None else blend_in_box(layer, frame, face_box)


def upstream_frame(
    frame: U8,
    stabilised: U8,
    source_box: Sequence[int],
    face_box: Sequence[int],
    mel: F32,
    networks: UpstreamNetworks,
    *,
    replace_upper_face: bool = False,
) -> U8:
    """One output frame of the original (stages 5.1, 5.2, 5.4 and 7.1 to 7.6).

    Args:
        frame: uint8 BGR (H, W, 3), the source frame this output frame shows.
        stabilised: uint8 BGR (256, 256, 3), D-Net's picture of it, `picture_of(..., truncate=True)`.
        source_box: the box that picture belongs in, from `source_box`.
        face_box: the lip network's box, from `face_boxes`.
        mel: float32 (1, 80, 16), the output frame's window.
        networks: all of them.
        replace_upper_face: as `synthesised_frame`.

    Returns:
        uint8 BGR (H, W, 3).

    Raises:
        InternalError: wrong shapes, dtypes or boxes, or a network's output that is not finite.
        NoFaceError: no landmarks in the enhanced reference.
    """
    enhanced = enhanced_reference(stabilised, networks)
    reference = reference_frame(enhanced, networks.landmarks(enhanced), frame, source_box)
    synthesised = synthesised_frame(
        frame, reference, face_box, mel, networks, replace_upper_face=replace_upper_face
    )
    return finished_frame(synthesised, frame, face_box, networks)


def _upper_face(face: U8, networks: FrameNetworks) -> F32:
    """What replaces the prediction's upper half: float32 BGR (3, 384, 384) in [0, 1]."""
    if networks.edit_upper_face is None:
        return np.ascontiguousarray((face.astype(np.float32) / np.float32(255)).transpose(2, 0, 1))
    return upper_face_planes(networks.edit_upper_face(upper_face_input(face)))
