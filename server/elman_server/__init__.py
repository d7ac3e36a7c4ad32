"""The Elman server: sessions of recurrent state, stepped together, streamed over gRPC."""

import os

# onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
