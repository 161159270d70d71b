"""Networks opened to be called for one item at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from dubstream.engines.artifact import Artifact
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.streaming.call import NetworkCall
from dubstream.runtime.timing import Timing

Calls = dict[str, NetworkCall]
"""By the network's name."""


@contextmanager
def opened_calls(platform: Platform, artifacts: Mapping[str, Artifact], *names: str) -> Iterator[Calls]:
    """Networks ready to be called until the block ends, one after another on a stream of their own.

    Args:
        platform: where they run.
        artifacts: verified ones by network.
        names: of the networks; one that is named twice is opened once.

    Raises:
        DeviceError: the backend is not there.
        ArtifactError: an artifact the backend cannot load.
    """
    wanted = tuple(dict.fromkeys(names))
    with (
        platform.opened(*(artifacts[name] for name in wanted)) as engines,
        closing(platform.device.stream("calls")) as stream,
    ):
        calls = [NetworkCall(platform.device, engine, stream) for engine in engines]
        yield dict(zip(wanted, calls, strict=True))


def account_calls(timing: Timing, stage: str, calls: Calls, part: str | None = None) -> None:
    """Take what the calls have spent since this was asked last out of a measured stage.

    Args:
        timing: gets the networks' seconds under ``<part>/<network>``.
        stage: where the calls were made.
        part: the stage itself by default.
    """
    for name, call in calls.items():
        spent = call.spent()
        if spent.calls:
            timing.split(stage, f"{part or stage}/{name}", *spent)
