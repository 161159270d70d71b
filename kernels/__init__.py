"""Pixel work that no graph holds: crop, warp, blend, paste. Each has a numpy reference."""
