"""What runs a graph on the CPU: ONNX Runtime and OpenVINO."""
