"""Export of trained models to ONNX graphs, which are verified before they are written."""
