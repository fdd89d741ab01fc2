"""The CPU's weights: int8 matrices derived from the fp16 file, once, without torch.

    model.onnx, fp16 -> constants folded to fp32 -> matrices to int8, a scale for each column -> the cache

Activations stay fp32 and are quantized as they come. Needs the package `onnx`, which `onnxruntime.quantization` uses.
"""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime


def derive(source: Path, target: Path) -> None:
    """Write `target`, the int8 version of `source`; another process never sees half a file.

    Takes about five seconds for MiniLM. Raises ImportError without onnx, and OSError.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises, for each model, to fold constants first; that is what `_widen` does.
    logging.getLogger().addFilter(_no_advice)
    try:
        with TemporaryDirectory(dir=target.parent) as directory:
            widened, finished = Path(directory) / "widened.onnx", Path(directory) / "int8.onnx"
            _widen(source, widened)
            quantize_dynamic(
                widened,
                finished,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,  # 7 bits: sums of 8 overflow on processors without VNNI
                weight_type=QuantType.QInt8,
            )
            os.replace(finished, target)  # noqa: PTH105  # atomic
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _widen(source: Path, target: Path) -> None:
    """ONNX Runtime itself folds the casts of constants, so that the quantizer finds fp32 matrices."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
