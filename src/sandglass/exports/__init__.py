"""Trained models for other programs: ONNX graphs, tried before they are written."""
