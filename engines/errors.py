"""The exception family of dubstream.

Every error the user can meet is a `DubError`. Its message says what was received and what was
expected; `hint` is the next command or action. The command line prints both on one line and exits
with `exit_code`, which follows sysexits so that schedulers can act on it:

    DubError                2   bad input or usage
    ├── VerificationError    1  a comparison or a baseline that does not hold: nothing broke, but do not ship
    ├── UsageError              an option or option value
    ├── MediaError              a video or audio file that cannot be used
    │   ├── LimitError              larger, longer or stranger than a limit allows (names the option)
    │   └── TruncatedMediaError     ends before its own index says
    ├── NoFaceError             no usable face
    ├── CheckpointError         a PyTorch checkpoint that does not fit its network
    ├── ArtifactError           an ONNX file or sidecar that is not what it says
    ├── DeviceError         69  a device or backend that is not there
    ├── InternalError       70  our own fault, or a network that produced nonsense
    │   ├── FidelityError           an export that does not equal its PyTorch network
    │   └── StageError              a stage failed; carries stage and frame
    ├── StorageError        74  disk full, permission, a folder that vanished
    └── RetryError          75  another process has it, or a passing fault: run it again
"""

from __future__ import annotations

from typing import ClassVar


class DubError(Exception):
    """Base of all errors of dubstream.

    Args:
        message: what was received and what was expected, one line.
        hint: the next command or action, one line; printed after the message.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class VerificationError(DubError):
    """`dubstream verify` or `dubstream bench` ran to its end and found something that does not hold.

    The report was written; the message names the first finding and how many there are.
    """

    exit_code = 1


class UsageError(DubError):
    """An option, an option's value, or a combination of options that makes no sense."""


class MediaError(DubError):
    """A video or audio file that cannot be used."""


class LimitError(MediaError):
    """A file beyond one of the limits; the message names the limit's option."""


class TruncatedMediaError(MediaError):
    """A file that ends, or is damaged, before its own index says it does."""


class NoFaceError(DubError):
    """No face that could be dubbed."""


class CheckpointError(DubError):
    """A PyTorch checkpoint that is unreadable, unsafe, or does not fit its network."""


class ArtifactError(DubError):
    """An ONNX file or sidecar whose digest, version or specification is not the expected one."""


class DeviceError(DubError):
    """A device, driver or backend that is not available."""

    exit_code = 69


class InternalError(DubError):
    """A fault of ours, or a network whose output is not usable."""

    exit_code = 70


class FidelityError(InternalError):
    """An exported network that is not within tolerance of its PyTorch original."""


class StageError(InternalError):
    """A stage of the stream failed.

    Args:
        stage: the stage's name, the same word as in timings and traces.
        frame: index of the first frame of the batch that failed.
        cause: the exception raised inside the stage.
    """

    def __init__(self, stage: str, frame: int, cause: BaseException) -> None:
        super().__init__(f"stage '{stage}' failed at frame {frame}: {type(cause).__name__}: {cause}")
        self.stage = stage
        self.frame = frame
        self.cause = cause


class StorageError(DubError):
    """Writing or reading failed for a reason outside the data: disk full, permission, missing folder."""

    exit_code = 74


class RetryError(DubError):
    """Nothing is wrong with the input; the same command may succeed later."""

    exit_code = 75
