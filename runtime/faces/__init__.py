"""Finding, following and aligning one face."""
