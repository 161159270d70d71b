"""TensorRT: plans built from verified artifacts, kept by `dubstream.engines.store`, run by `executor`.

TensorRT itself is imported by `compat.load` only, when a plan is built or run.
"""
