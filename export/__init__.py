"""Trained PyTorch checkpoints in, verified ONNX artifacts out. The only room that imports torch."""
