"""Devices, slots and the double-buffered streamer."""

from dubstream.runtime.streaming.device import Device, Event, Stream
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.streaming.report import Span, StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot, SlotRing
from dubstream.runtime.streaming.stages import EngineStage, Stage
from dubstream.runtime.streaming.streamer import Streamer

__all__ = [
    "BufferSpec",
    "Device",
    "EngineStage",
    "Event",
    "HostDevice",
    "Slot",
    "SlotRing",
    "Span",
    "Stage",
    "Stream",
    "StreamReport",
    "Streamer",
]
