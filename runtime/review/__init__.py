"""How far a dubbed video is from another one."""
