"""Whether exports and engines still say what the PyTorch network says."""
