"""A stand-in for Triton's onnxruntime backend, which the wheel lacks: the same model.onnx by ONNX Runtime, on the CPU.

Copied into a version directory as model.py, beside a configs/cpu.pbtxt that says backend: "python".
"""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, _):
        path = str(Path(__file__).parent / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = {
            tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name).as_numpy()
            for tensor in self.session.get_inputs()
        }
        names = [output.name for output in self.session.get_outputs()]
        results = self.session.run(names, inputs)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(names, results, strict=True)])
