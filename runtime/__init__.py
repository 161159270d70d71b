"""Streaming dubbing: media, faces, audio, devices, the dub job and the command line. No torch, no onnx."""
