"""Detectors as files that run without Boxwright: ONNX and OpenVINO."""
