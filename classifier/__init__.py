"""Train, evaluate and export the model that `triton_models/prompt_classifier` serves."""

import os

# From 1.29 on ONNX Runtime's Linux builds report to their maker unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
