"""Who finds faces in a job: OpenCV's cascade, or networks on the job's platform.

The networks run where the job computes, one picture a call: up, network, down, wait. That round trip through
host memory costs a GPU little here, as the detector looks at one frame in `detect_every`. On the processor
beside it they would cost far more: S3FD alone is 76 GMAC, more than D-Net, and would hold up every
other stage of the preparation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from dubstream.engines.artifact import Artifact
from dubstream.runtime.faces.detector import (
    CascadeDetector,
    CascadeLandmarks,
    FaceDetector,
    LandmarkEstimator,
)
from dubstream.runtime.faces.networks import NetworkDetector, NetworkLandmarks
from dubstream.runtime.options.dub import FaceOptions
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.streaming.call import NetworkCall, Spent


@dataclass(frozen=True)
class Finder:
    """Boxes and their five points; not safe to share between threads.

    Attributes:
        detector, landmarks: see the protocols.
        calls: the networks behind them; none for the cascade.
    """

    detector: FaceDetector
    landmarks: LandmarkEstimator
    calls: tuple[NetworkCall, ...] = ()

    def spent(self) -> dict[str, Spent]:
        """By network, what its calls since this was asked last have taken."""
        return {call.spec.name: call.spent() for call in self.calls}


@contextmanager
def open_finder(face: FaceOptions, artifacts: Mapping[str, Artifact], platform: Platform) -> Iterator[Finder]:
    """What `face.finder` names, ready until the block ends.

    Args:
        face: the choice.
        artifacts: verified ones by network, `face.networks` among them.
        platform: where networks run; this thread is attached to it.

    Raises:
        DeviceError: the backend is not there, or an OpenCV without cascades.
        ArtifactError: an artifact the backend cannot load.
    """
    if not face.networks:
        yield Finder(CascadeDetector(), CascadeLandmarks())
        return
    with (
        platform.opened(*(artifacts[name] for name in face.networks)) as (s3fd, fan4),
        closing(platform.device.stream("faces")) as stream,
    ):
        calls = NetworkCall(platform.device, s3fd, stream), NetworkCall(platform.device, fan4, stream)
        yield Finder(NetworkDetector(calls[0]), NetworkLandmarks(calls[1]), calls)
