"""Devices, slots and the double-buffered streamer."""
