"""Where a version runs: with which of ONNX Runtime's providers, on which weights, in which shapes.

    instance kind, providers at hand, encoder  -> plan (pure)  ->  sessions  ->  check what really runs

On a GPU: TensorRT for a transformer, else CUDA; never silently the CPU. On a CPU: a transformer's weights as int8.
TensorRT's engines and the int8 file are made once and kept in a cache: $PROMPT_CLASSIFIER_CACHE, else
~/.cache/prompt_classifier. Without a place to write, the version runs all the same, and says so.
"""

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnxruntime
from int8 import derive
from onnxruntime import InferenceSession
from scoring import (
    BUCKETS,
    ROWS_PER_RUN,
    Provider,
    Spec,
    VersionError,
    open_session,
    read_version,
)

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
CACHE_VARIABLE = "PROMPT_CLASSIFIER_CACHE"
# Where the work of an encoder is. Shapes are small change that ONNX Runtime keeps on the CPU by design.
HEAVY = frozenset({"MatMul", "Gemm", "Softmax", "LayerNormalization", "Gather"})
OPTIMAL_ROWS = 32  # the batch for which TensorRT picks its kernels
INPUTS = ("input_ids", "attention_mask")

Assigned = Mapping[str, Counter[str]]  # provider -> how many nodes of each operator it runs
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run on: the provider that does the work, and int8 or fp16 weights."""

    provider: str
    int8: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What really runs."""

    sessions: tuple[tuple[int, InferenceSession], ...]  # the longest row that a session takes, in tokens, ascending
    nodes: Mapping[str, int]  # how many nodes of the graph each provider runs
    description: str  # one line for the log


def make_plan(kind: str, available: Sequence[str], encoder: str) -> Plan:
    """Choose for an instance kind ("GPU" or "CPU") among the providers that this ONNX Runtime was built with.

    A static encoder looks tokens up and adds: TensorRT has nothing to gain there. Raises VersionError for a GPU
    instance without CUDA.
    """
    if kind != "GPU":
        return Plan(CPU, int8=encoder == "transformer")
    if CUDA not in available:
        raise VersionError(
            f"this instance is KIND_GPU, but ONNX Runtime was built for {', '.join(available)}: install "
            "onnxruntime-gpu with its CUDA libraries, or start Triton with --model-config-name=cpu"
        )
    return Plan(TENSORRT if encoder == "transformer" and TENSORRT in available else CUDA)


def session_widths(plan: Plan, max_tokens: int) -> list[tuple[int, int]]:
    """Return the shortest and the longest row, in tokens, of each session.

    One for all, but with TensorRT one for each length bucket: ONNX Runtime builds several shape profiles into an
    engine and then only ever runs the first.
    """
    if plan.provider != TENSORRT:
        return [(1, max_tokens)]
    edges = [0, *(edge for edge in BUCKETS if edge < max_tokens), max_tokens]
    return [(shorter + 1, longest) for shorter, longest in pairwise(edges)]


def providers_of(plan: Plan, device: str, widths: tuple[int, int], cache: Path | None) -> list[Provider]:
    """Return one session's providers with their options, the wanted one first."""
    cuda: Provider = (CUDA, {"device_id": device})
    if plan.provider == CPU:
        return [CPU]
    if plan.provider == CUDA:
        return [cuda, CPU]
    return [(TENSORRT, {"device_id": device, **tensorrt_options(widths, cache)}), cuda, CPU]


def tensorrt_options(widths: tuple[int, int], cache: Path | None) -> dict[str, str]:
    """Return fp16, the shape profile of one length bucket, and the engine cache: one folder for each profile."""
    shortest, longest = widths
    shapes = {"min": (1, shortest), "opt": (OPTIMAL_ROWS, longest), "max": (ROWS_PER_RUN, longest)}
    options = {"trt_fp16_enable": "True"}  # not "1": ONNX Runtime refuses that, and goes on without TensorRT
    for name, (rows, tokens) in shapes.items():
        options[f"trt_profile_{name}_shapes"] = ",".join(f"{tensor}:{rows}x{tokens}" for tensor in INPUTS)
    if cache is not None:
        folder = str(cache / f"tensorrt-{longest}-tokens")
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": folder}
        options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": folder}
    return options


def check_running(plan: Plan, assigned: Assigned) -> None:
    """Refuse an instance that was promised a GPU and would compute on the CPU; raises VersionError."""
    on_cpu = sorted(HEAVY & set(assigned.get(CPU, ())))
    if plan.provider != CPU and on_cpu:
        raise VersionError(
            f"this instance is KIND_GPU, but ONNX Runtime would run {', '.join(on_cpu)} on the CPU: its CUDA libraries "
            "could not be loaded (see above in Triton's log). Install onnxruntime-gpu for the CUDA and cuDNN of this "
            "machine, or start Triton with --model-config-name=cpu"
        )


def describe(plan: Plan, weights: str, assigned: Assigned) -> str:
    """Return one line: which provider runs how much of which weights, and what was wanted in vain."""
    parts = [f"{provider} {sum(nodes.values())} nodes" for provider, nodes in sorted(assigned.items(), reverse=True)]
    line = f"{weights} runs on {', '.join(parts)}"
    if plan.provider not in assigned:
        line += f"; {plan.provider} was wanted but could not be loaded"
    return line


def open_sessions(version_dir: Path, kind: str, device: str, log: Log) -> Running:
    """Open the sessions of a version for one instance. The first time may take minutes: TensorRT builds its engines.

    Instances that start together wait for each other, so that one builds and the others find it in the cache.
    Raises VersionError.
    """
    spec = read_version(version_dir)
    plan = make_plan(kind, onnxruntime.get_available_providers(), spec.encoder)
    with version_cache(version_dir / "model.onnx", plan, log) as cache:
        weights = choose_weights(version_dir / "model.onnx", plan, cache, log)
        return _open(plan, spec, weights, device, cache)


def _open(plan: Plan, spec: Spec, weights: Path, device: str, cache: Path | None) -> Running:
    sessions = []
    assigned: Assigned = {}
    for widths in session_widths(plan, spec.max_tokens):
        session = open_session(weights, providers_of(plan, device, widths, cache))
        assigned = assignment(session)
        check_running(plan, assigned)
        sessions.append((widths[1], session))
    nodes = {provider: sum(operators.values()) for provider, operators in assigned.items()}
    return Running(tuple(sessions), nodes, describe(plan, weights.name, assigned))


def assignment(session: InferenceSession) -> Assigned:
    """Ask ONNX Runtime which provider got which operators."""
    counts: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counts.setdefault(subgraph.ep_name, Counter()).update(node.op_type for node in subgraph.get_nodes())
    return counts


def choose_weights(model: Path, plan: Plan, cache: Path | None, log: Log) -> Path:
    """Return the file to load: for a CPU's transformer the int8 one, derived on the first start."""
    if not plan.int8 or cache is None:
        return model
    target = cache / "model.int8.onnx"
    try:
        if not target.is_file():
            derive(model, target)
    except (ImportError, OSError) as error:
        log(f"runs {model.name} as it is, at less than half the speed of int8: {error}")
        return model
    return target


@contextmanager
def version_cache(model: Path, plan: Plan, log: Log) -> Iterator[Path | None]:
    """Give this file's own folder in the cache, locked against other processes; None where nothing is to be kept.

    Its name tells the weights and ONNX Runtime's version, so what is found there is never stale.
    """
    if not plan.int8 and plan.provider != TENSORRT:
        yield None
        return
    try:
        folder = cache_directory(os.environ) / f"{_digest(model)}-onnxruntime-{onnxruntime.__version__}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except (OSError, RuntimeError) as error:
        log(f"no cache, so every start works it all out anew: {error}; set {CACHE_VARIABLE} to a writable directory")
        yield None
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Return the configured directory, or the user's own; RuntimeError where the user has no home."""
    configured = environment.get(CACHE_VARIABLE)
    return Path(configured) if configured else Path.home() / ".cache" / "prompt_classifier"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
