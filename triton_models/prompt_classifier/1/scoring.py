"""Score prompts: text in, calibrated probabilities out.

    texts -> tokenize, truncate -> sort by length, cut into buckets -> pad, run ONNX -> un-sort -> calibrate

This file lies beside the weights, tokenizer and spec that it serves, so a version brings its own way of
scoring. Triton's `model.py` and offline prediction both load it; it needs numpy, tokenizers and onnxruntime.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]
Provider = str | tuple[str, dict[str, str]]

FILES = ("model.onnx", "tokenizer.json", "spec.json")
ENCODERS = ("static", "transformer", "deberta")
# The labels of each head; a version's spec may name task types of its own.
LABELS: Mapping[str, tuple[str, ...]] = {
    "outcomes": ("both", "only_strong", "only_weak", "neither"),
    "task_types": (
        "Brainstorming",
        "Chatbot",
        "Classification",
        "Closed QA",
        "Code Generation",
        "Extraction",
        "Open QA",
        "Other",
        "Rewrite",
        "Summarization",
        "Text Generation",
        "Unknown",
    ),
    "dimensions": (
        "creativity",
        "reasoning",
        "contextual_knowledge",
        "domain_knowledge",
        "constraints",
        "few_shots",
    ),
}
ONNX_OUTPUTS: Mapping[str, str] = {
    "outcomes": "outcome_logits",
    "task_types": "task_logits",
    "dimensions": "dimensions",
}
NAME = re.compile(r"[ -~]{1,64}")
COMPLEXITY = (
    "Creativity",
    "Reasoning",
    "Contextual-Knowledge",
    "Few-Shot",
    "Domain-Knowledge",
    "No-Label-Reason",
    "Constraint",
)

# Upper bounds in tokens. A bucket is padded to its longest row, so no row pays more than double.
BUCKETS = (16, 32, 64, 128, 256)
ROWS_PER_RUN = 64
# No ordinary text has so many characters per token. What lies beyond would be truncated anyway; it is never
# tokenized, so that a prompt of megabytes does not keep its batch mates waiting.
CHARACTERS_PER_TOKEN = 32


class VersionError(Exception):
    """A version directory that cannot be served; names the file or key, what was seen and what to do."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a version says of itself in `spec.json`, as far as scoring needs it."""

    encoder: str  # of ENCODERS
    labels: Mapping[str, tuple[str, ...]]  # of each head that the version has: "outcomes", "task_types", "dimensions"
    max_tokens: int
    temperature: float
    bias: tuple[float, ...]  # added to the four outcome logits after the division by the temperature

    def unscored(self, rows: int) -> dict[str, Floats]:
        """Return a NaN for each label of every head, absent heads too: [rows, labels]."""
        widths = {head: len(self.labels.get(head, labels)) for head, labels in LABELS.items()}
        return {head: np.full((rows, width), np.nan, np.float32) for head, width in widths.items()}


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of n texts, in their order. A head that the version lacks is NaN."""

    outcome: Floats  # [n, 4] calibrated probabilities, order of LABELS["outcomes"]
    task_type: Floats  # [n, task types] probabilities, in the order of the spec
    dimensions: Floats  # [n, 6] each in 0..1, order of LABELS["dimensions"]
    complexity: Floats  # [n, 7] order of COMPLEXITY
    tokens: Ints  # [n, 2] tokens seen, tokens dropped by truncation
    padded_tokens: int  # padding that the model had to compute, over all rows

    @classmethod
    def unscored(cls, spec: Spec) -> "Scores":
        """Return one row that says nothing: NaN throughout, no tokens."""
        heads = spec.unscored(1)
        complexity = np.full((1, len(COMPLEXITY)), np.nan, np.float32)
        tokens = np.zeros((1, 2), np.int32)
        return cls(heads["outcomes"], heads["task_types"], heads["dimensions"], complexity, tokens, 0)

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Return the rows of all parts, in order."""
        outcome, task_type, dimensions, complexity, tokens = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("outcome", "task_type", "dimensions", "complexity", "tokens")
        )
        padded_tokens = sum(part.padded_tokens for part in parts)
        return cls(outcome, task_type, dimensions, complexity, tokens, padded_tokens)


class PromptTokenizer:
    """A version's tokenizer, cut off at max_tokens. Not for several threads at once."""

    def __init__(self, path: Path, max_tokens: int, threads: int = 1) -> None:
        """Read tokenizer.json; raises VersionError."""
        _limit_tokenizer_threads(threads)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise VersionError(f"{path} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=max_tokens)
        self._readable = max_tokens * CHARACTERS_PER_TOKEN
        self._special_tokens: int = self._tokenizer.num_special_tokens_to_add(False)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], Ints]:
        """Return each text's token ids, at most max_tokens, and [n, 2] counts of tokens seen and dropped."""
        limit = self._readable
        encodings = self._tokenizer.encode_batch_fast([text[:limit] for text in texts])
        ids = [encoding.ids for encoding in encodings]
        counts = np.zeros((len(texts), 2), dtype=np.int32)
        for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            kept = len(ids[row])
            dropped = sum(len(rest) - self._special_tokens for rest in encoding.overflowing)
            unread = len(text) - limit
            if unread > 0:  # estimated at the rate of the part that was read
                dropped += round(unread * (kept + dropped) / limit)
            counts[row] = kept, dropped
        return ids, counts


class Scorer:
    """One loaded version. Not for several threads at once: each instance has its own."""

    def __init__(
        self, spec: Spec, tokenizer: PromptTokenizer, sessions: Sequence[tuple[int, InferenceSession]]
    ) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self._sessions = sessions
        self._outputs = [ONNX_OUTPUTS[head] for head in spec.labels]

    @classmethod
    def load(
        cls, version_dir: Path, *, sessions: Sequence[tuple[int, InferenceSession]] | None = None, threads: int = 1
    ) -> "Scorer":
        """Load a directory with model.onnx, tokenizer.json and spec.json.

        `sessions` run the model, each with the longest row that it takes, in tokens, ascending; without them one on
        the CPU does, on the weights as they are. `threads` are for its work and the tokenizer's.
        Raises VersionError when a file is missing or broken, or when the files do not fit together.
        """
        spec = read_version(version_dir)
        tokenizer = PromptTokenizer(version_dir / "tokenizer.json", spec.max_tokens, threads)
        if sessions is None:
            sessions = [(spec.max_tokens, open_session(version_dir / "model.onnx", ["CPUExecutionProvider"], threads))]
        _check_outputs(spec, sessions[-1][1], version_dir)
        return cls(spec, tokenizer, sessions)

    def score(self, texts: Sequence[str]) -> Scores:
        """Score n texts; any number, in any order, also empty ones."""
        ids, tokens = self.tokenizer.tokenize(texts)
        heads = self.spec.unscored(len(texts))
        padded_tokens = 0
        for rows in length_buckets(tokens[:, 0]):
            input_ids, mask = pad([ids[row] for row in rows])
            padded_tokens += int(mask.size - mask.sum())
            for head, result in zip(self.spec.labels, self.run(input_ids, mask), strict=True):
                heads[head][rows] = result
        return calibrated(self.spec, heads, tokens, padded_tokens)

    def run(self, input_ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> list[Floats]:
        """Return what the heads of `spec.labels` say of padded rows: int64 [n, tokens], at most max_tokens wide."""
        tokens = input_ids.shape[1]
        session = next(session for longest, session in self._sessions if tokens <= longest)
        results: list[Floats] = session.run(self._outputs, {"input_ids": input_ids, "attention_mask": mask})
        return results


def calibrated(spec: Spec, heads: Mapping[str, Floats], tokens: Ints, padded_tokens: int = 0) -> Scores:
    """Turn what the model says, outcome and task logits and dimensions, into scores; an absent head is NaN."""
    raw = {**spec.unscored(len(tokens)), **heads}
    outcome = raw["outcomes"] / np.float32(spec.temperature) + np.asarray(spec.bias, np.float32)
    return Scores(
        outcome=softmax(outcome),
        task_type=softmax(raw["task_types"]),
        dimensions=raw["dimensions"],
        complexity=complexity(raw["dimensions"]),
        tokens=tokens,
        padded_tokens=padded_tokens,
    )


def decode(rows: npt.NDArray[Any]) -> list[str]:
    """Return the texts of a TEXT tensor [n, 1] of bytes; ValueError names the bad row, and never quotes it."""
    if rows.ndim != 2 or rows.shape[1] != 1:
        raise ValueError(f"TEXT has shape {list(rows.shape)}, expected [rows, 1]")
    texts = []
    for index, row in enumerate(rows[:, 0]):
        try:
            texts.append(row.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"TEXT row {index} is not UTF-8: byte {error.start} is invalid") from None
    return texts


def length_buckets(lengths: Ints) -> list[Indices]:
    """Cut rows, given their lengths in tokens, into runs of similar length and at most ROWS_PER_RUN rows."""
    order = np.argsort(lengths, kind="stable")
    edges = np.searchsorted(lengths[order], BUCKETS, side="right")
    return [
        bucket[start : start + ROWS_PER_RUN]
        for bucket in np.split(order, edges)
        for start in range(0, len(bucket), ROWS_PER_RUN)
    ]


def pad(ids: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return input_ids and attention_mask, both [n, longest]; a text without tokens still has one column."""
    input_ids = np.zeros((len(ids), max(1, *map(len, ids))), dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return input_ids, mask


def softmax(logits: Floats) -> Floats:
    """Turn logits [n, k] into probabilities; NaN stays NaN."""
    powers: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def complexity(dimensions: Floats) -> Floats:
    """Return the dimensions [n, 6] in NVIDIA's order [n, 7]; rows without them point at No-Label-Reason."""
    creativity, reasoning, contextual, domain, constraints, few_shots = dimensions.T
    absent = np.isnan(dimensions).any(axis=1)
    columns = [creativity, reasoning, contextual, few_shots, domain, absent, constraints]
    result: Floats = np.stack(columns, axis=1).astype(np.float32)
    result[absent] = np.eye(len(COMPLEXITY), dtype=np.float32)[COMPLEXITY.index("No-Label-Reason")]
    return result


def read_version(version_dir: Path) -> Spec:
    """Return the spec of a complete version directory; raises VersionError."""
    missing = [name for name in FILES if not (version_dir / name).is_file()]
    if missing:
        raise VersionError(
            f"{', '.join(missing)} missing in {version_dir}: "
            "export a version with `python -m classifier export` or restore the committed files"
        )
    return parse_spec(read_spec(version_dir))


def read_spec(version_dir: Path) -> object:
    """Return the document in `spec.json`; raises VersionError when it is not JSON."""
    path = version_dir / "spec.json"
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VersionError(f"{path} is not JSON: {error}") from error
    return document


def parse_spec(document: object) -> Spec:
    """Check what scoring depends on; raises VersionError naming key, value seen and what is allowed."""
    if not isinstance(document, dict):
        raise VersionError(f"spec.json: expected one object, found {type(document).__name__}")
    if document.get("format") != 1:
        raise VersionError(f"spec.json: format is {document.get('format')!r}, this code reads 1: export it again")
    labels = {head: _head_labels(head, document[head]) for head in LABELS if document.get(head) is not None}
    encoder: Any = document.get("encoder")
    kind = encoder.get("kind") if isinstance(encoder, dict) else None
    if kind not in ENCODERS:
        raise VersionError(f"spec.json: encoder.kind is {kind!r}, allowed are {', '.join(ENCODERS)}")
    max_tokens = document.get("max_tokens")
    if not isinstance(max_tokens, int) or not 8 <= max_tokens <= 8192:
        raise VersionError(f"spec.json: max_tokens is {max_tokens!r}, allowed are 8 to 8192")
    calibration: Any = document.get("calibration")
    try:
        temperature, bias = float(calibration["temperature"]), tuple(map(float, calibration["bias"]))
    except (TypeError, KeyError, ValueError):
        temperature, bias = 0.0, ()
    if not 0 < temperature < np.inf or len(bias) != len(LABELS["outcomes"]) or not np.isfinite(bias).all():
        raise VersionError(
            f"spec.json: calibration is {calibration!r}, "
            'allowed is {"temperature": above 0, "bias": four finite numbers}'
        )
    return Spec(encoder=kind, labels=labels, max_tokens=max_tokens, temperature=temperature, bias=bias)


def _head_labels(head: str, seen: object) -> tuple[str, ...]:
    allowed = str(list(LABELS[head]))
    if head == "task_types" and isinstance(seen, list):
        # A task's name becomes a header of the router's answer, so it is one line of ASCII.
        allowed = "two or more different names, each 1 to 64 printable ASCII characters"
        named = all(isinstance(name, str) and NAME.fullmatch(name) for name in seen)
        if named and 2 <= len(seen) == len(set(seen)):
            return tuple(seen)
    elif seen == list(LABELS[head]):
        return LABELS[head]
    raise VersionError(f"spec.json: {head} is {seen!r}, allowed are null (no such head) and {allowed}")


def open_session(path: Path, providers: Sequence[Provider], threads: int = 1) -> InferenceSession:
    """Open an ONNX file with ONNX Runtime's providers, the wanted one first; raises VersionError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; ONNX Runtime's warnings are about its own graph rewriting
    # Spinning between calls burns the core that the tokenizer and the router need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It then can tell which provider runs what.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        return InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise VersionError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error


def _check_outputs(spec: Spec, session: InferenceSession, version_dir: Path) -> None:
    widths = {output.name: output.shape[-1] for output in session.get_outputs()}
    for head, labels in spec.labels.items():
        name, width = ONNX_OUTPUTS[head], len(labels)
        if widths.get(name) != width:
            raise VersionError(
                f"{version_dir}: spec.json declares {head}, but model.onnx has no output {name} "
                f"of width {width} (it has {widths}): export the two together"
            )


def _limit_tokenizer_threads(threads: int) -> None:
    # The tokenizer library takes its thread count from the environment only; an operator's own setting wins.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
