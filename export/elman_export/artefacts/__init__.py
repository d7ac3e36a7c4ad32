"""The artefact: one ONNX file that describes itself; read, checked, written and run."""
