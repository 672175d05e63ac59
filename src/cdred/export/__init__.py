"""Export of a trained policy as ONNX, StableHLO or NumPy arrays, to act without cdred."""
