"""Cross-encoders without torch: ``onnx:``."""
