"""How many prompts per second the real classifier scores through the real Triton.

    [CLASSIFIER=minilm] python -m loadtest.bench_classifier [--rounds 5] [--seconds 2] [--json FILE]

The server is pinned to one core and the client to the others. The cases take turns in rounds, so that a busy
machine slows all of them alike; `echo_ceiling` is a model that does no work, so its rate is the most that
gRPC, Triton and the python backend allow. Best rate, least CPU and p50 are over rounds, p99 over all calls.
Two cases without Triton show what length buckets save over padding every prompt to the model's limit.
The last line on stdout is one JSON document.
"""

import argparse
import importlib.util
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc as grpc_client

from loadtest.bench.machine import pinned_to
from loadtest.local_triton import MODELS, LocalTriton, LocalTritonError
from loadtest.stack import SettingError, classifier_config

CLASSIFIER, CEILING = "prompt_classifier", "echo_ceiling"
ECHO_MODEL = Path(__file__).parent / "echo_models" / CEILING
BATCH = 32
DISTINCT_BATCHES = 60
WORDS_PER_PROMPT = 82  # about 100 tokens
VOCABULARY = (
    "the a of and to in for with on that which into from as by each every two three several first last new old "
    "report letter table function server customer answer question example method result number city river engine "
    "contract recipe budget theorem sentence paragraph translate summarize explain compare write list prove "
    "compute rewrite classify describe suggest short careful possible cheap expensive formal friendly quickly "
    "step reason because however therefore unless while before after between without approximately JSON Python"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure: calls of `batch` prompts, `in_flight` at a time."""

    name: str
    batch: int
    in_flight: int
    call: Callable[[int], None]  # makes the n-th call
    cpu_s: Callable[[], float]  # CPU seconds that the measured side has used so far


@dataclass(frozen=True, slots=True)
class Round:
    """What one case did in one round."""

    seconds: float
    cpu_s: float
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One case over all rounds."""

    name: str
    batch: int
    in_flight: int
    prompts_per_s: float
    prompts_per_s_median: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_prompt: float


def make_prompts(count: int, seed: int = 1) -> list[str]:
    """Return distinct prompts of about 100 tokens."""
    generator = random.Random(seed)
    prompts = []
    for number in range(count):
        words = generator.choices(VOCABULARY.split(), k=WORDS_PER_PROMPT)
        sentences = [" ".join(words[start : start + 12]).capitalize() for start in range(0, len(words), 12)]
        prompts.append(f"{number}: {'. '.join(sentences)}.")
    return prompts


def measure(case: Case, seconds: float) -> Round:
    """Call for `seconds`, in as many threads as the case has calls in flight."""
    numbers = itertools.count()
    deadline = time.perf_counter() + seconds

    def work() -> list[float]:
        latencies = []
        while (started := time.perf_counter()) < deadline:
            case.call(next(numbers))
            latencies.append((time.perf_counter() - started) * 1e3)
        return latencies

    cpu_before, started = case.cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(case.in_flight) as pool:
        workers = [pool.submit(work) for _ in range(case.in_flight)]
        latencies = [latency for worker in workers for latency in worker.result()]
    return Round(time.perf_counter() - started, case.cpu_s() - cpu_before, tuple(latencies))


def summarize(case: Case, rounds: Sequence[Round]) -> Result:
    """Best and median rate, least CPU and p50 over rounds; p99 over all calls."""
    rates = [case.batch * len(r.latencies_ms) / r.seconds for r in rounds]
    return Result(
        name=case.name,
        batch=case.batch,
        in_flight=case.in_flight,
        prompts_per_s=round(max(rates), 1),
        prompts_per_s_median=round(statistics.median(rates), 1),
        p50_ms=round(min(statistics.median(r.latencies_ms) for r in rounds), 3),
        p99_ms=round(float(np.percentile([ms for r in rounds for ms in r.latencies_ms], 99)), 3),
        cpu_us_per_prompt=round(min(r.cpu_s * 1e6 / (case.batch * len(r.latencies_ms)) for r in rounds), 1),
    )


def triton_cases(triton: LocalTriton, prompts: Sequence[str], stack: ExitStack) -> list[Case]:
    """Return the cases through gRPC: the classifier beside the ceiling."""
    client = grpc_client.InferenceServerClient(triton.grpc_url)
    stack.callback(client.close)
    server = psutil.Process(triton.pid)
    processes = [server, *server.children(recursive=True)]

    def cpu_s() -> float:
        times = [process.cpu_times() for process in processes]
        return float(sum(t.user + t.system for t in times))

    def case(model: str, batch: int, in_flight: int) -> Case:
        inputs = [to_input(prompts[start : start + batch]) for start in range(0, len(prompts), batch)]
        return Case(
            model,
            batch,
            in_flight,
            lambda number: client.infer(model, [inputs[number % len(inputs)]], client_timeout=30),
            cpu_s,
        )

    return [
        case(model, batch, in_flight)
        for batch, in_flight in ((BATCH, 1), (BATCH, 2), (1, 1))
        for model in (CLASSIFIER, CEILING)
    ]


def offline_cases(version_dir: Path, prompts: Sequence[str]) -> list[Case]:
    """Return the cases without Triton: buckets of similar length, and NVIDIA v1's way of padding to the limit."""
    scorer = load_scorer(version_dir)
    batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
    width = scorer.spec.max_tokens

    def bucketed(number: int) -> None:
        scorer.score(batches[number % len(batches)])

    def padded(number: int) -> None:
        rows, _ = scorer.tokenizer.tokenize(batches[number % len(batches)])
        input_ids = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
        scorer.run(input_ids, mask)

    return [
        Case("length buckets, no Triton", BATCH, 1, bucketed, time.process_time),
        Case(f"padded to {width}, no Triton", BATCH, 1, padded, time.process_time),
    ]


def to_input(prompts: Sequence[str]) -> grpc_client.InferInput:
    """Return TEXT [n, 1], serialized beforehand so that the client's work does not count."""
    tensor = grpc_client.InferInput("TEXT", [len(prompts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[prompt.encode()] for prompt in prompts], dtype=object))
    return tensor


def load_scorer(version_dir: Path) -> Any:  # noqa: ANN401 - its type comes with the version
    """Load a version with the scoring code that it brings along."""
    spec = importlib.util.spec_from_file_location("scoring_of_version", version_dir / "scoring.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{version_dir / 'scoring.py'} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Scorer.load(version_dir)


def run(models: Path, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; return the JSON document."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_cores = {cores[0]}, set(cores[1:] or cores)
    prompts = make_prompts(BATCH * DISTINCT_BATCHES)
    with ExitStack() as stack:
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-classifier-")))
        with pinned_to(server_core):
            config = classifier_config(os.environ)
            triton = LocalTriton.start(
                run_dir, models=models, extra_models=[ECHO_MODEL], config=config, on_progress=say
            )
        stack.enter_context(triton)
        stack.enter_context(pinned_to(client_cores))
        cases = triton_cases(triton, prompts, stack) + offline_cases(
            models / CLASSIFIER / served_version(triton), prompts
        )
        measured: list[list[Round]] = [[] for _ in cases]
        for case in cases:
            measure(case, seconds / 4)  # warm-up, not counted
        for number in range(1, rounds + 1):
            for case, done in zip(cases, measured, strict=True):
                done.append(measure(case, seconds))
                rate = case.batch * len(done[-1].latencies_ms) / done[-1].seconds
                say(f"round {number}/{rounds}: {label(case)}: {rate:,.0f} prompts/s")
        tokens = mean_tokens(triton, prompts[:BATCH])
    results = [summarize(case, done) for case, done in zip(cases, measured, strict=True)]
    return {
        "benchmark": "classifier",
        "tokens_per_prompt": tokens,
        "server_cores": 1,
        "machine_cores": len(cores),
        "rounds": rounds,
        "seconds_per_round": seconds,
        "results": [asdict(result) for result in results],
        "share_of_ceiling": shares_of_ceiling(results),
    }


def shares_of_ceiling(results: Sequence[Result]) -> dict[str, float]:
    """Return the classifier's rate over the echo model's, for each way of calling them."""
    rates = {(result.name, result.batch, result.in_flight): result.prompts_per_s for result in results}
    return {
        f"{batch} x {in_flight}": round(rate / rates[CEILING, batch, in_flight], 4)
        for (name, batch, in_flight), rate in rates.items()
        if name == CLASSIFIER
    }


def served_version(triton: LocalTriton) -> str:
    """Return the version of the classifier that answers."""
    client = grpc_client.InferenceServerClient(triton.grpc_url)
    try:
        return str(client.get_model_metadata(CLASSIFIER, as_json=True)["versions"][-1])
    finally:
        client.close()


def mean_tokens(triton: LocalTriton, prompts: Sequence[str]) -> float:
    """Return how many tokens the classifier sees in a prompt."""
    client = grpc_client.InferenceServerClient(triton.grpc_url)
    try:
        tokens = client.infer(CLASSIFIER, [to_input(prompts)]).as_numpy("TOKENS")
    finally:
        client.close()
    return round(float(tokens[:, 0].mean()), 1)


def label(case: Case | Result) -> str:
    """Return how a case is named in the table."""
    return f"{case.name}, batch {case.batch}, {case.in_flight} in flight"


def table(document: dict[str, Any]) -> str:
    """Return the results as text."""
    header = f"{'':<56}{'prompts/s':>11}{'median':>10}{'p50 ms':>9}{'p99 ms':>9}{'CPU us/prompt':>15}"
    lines = [header]
    for fields in document["results"]:
        r = Result(**fields)
        lines.append(
            f"{label(r):<56}{r.prompts_per_s:>11,.0f}{r.prompts_per_s_median:>10,.0f}"
            f"{r.p50_ms:>9.2f}{r.p99_ms:>9.2f}{r.cpu_us_per_prompt:>15.1f}"
        )
    shares = ", ".join(f"{share:.1%} at {case}" for case, share in document["share_of_ceiling"].items())
    return "\n".join([*lines, f"{document['tokens_per_prompt']} tokens per prompt; of the ceiling: {shares}"])


def main() -> int:
    """Parse the command line, measure, print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench_classifier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="model repository (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each case (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the JSON document to this file too")
    options = parser.parse_args()
    try:
        document = run(
            options.models, options.rounds, options.seconds, lambda line: print(line, file=sys.stderr, flush=True)
        )
    except (LocalTritonError, SettingError) as error:
        print(f"bench_classifier: {error}", file=sys.stderr)
        return 1
    print(table(document))
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
