"""Train, evaluate and export the prompt classifier.

  python -m classifier train --data DIR --tasks FILE --out CHECKPOINT
  python -m classifier export --checkpoint CHECKPOINT --out triton_models/prompt_classifier/1
  python -m classifier evaluate --model triton_models/prompt_classifier/1 --data DIR
  python -m classifier render-config
  python -m classifier time-eager

`train`, `export` and `time-eager` need torch (`make train-env` makes .venv-train with it); the others do not.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from classifier.errors import ClassifierError
from classifier.recipe import Recipe

SERVED = Path(__file__).parent.parent / "triton_models" / "prompt_classifier" / "1"


def train(arguments: argparse.Namespace) -> None:
    """Train a static encoder and write a checkpoint (safetensors, spec.json, tokenizer.json).

    The data are split by near-duplicate group: 80% train, 5% calibrate, 15% test; the figures in spec.json are
    those of the test split. Deterministic for a seed. About a minute on one core, two with
    --leave-one-source-out.
    """
    import torch

    from classifier.data import read_routing, read_tasks
    from classifier.train import train as run

    torch.set_num_threads(arguments.threads)
    recipe = Recipe(**{field.name: getattr(arguments, field.name) for field in fields(Recipe)})
    spec = run(
        read_routing(arguments.data),
        read_tasks(arguments.tasks),
        arguments.out,
        recipe,
        hold_out_sources=arguments.leave_one_source_out,
        progress=_progress(),
    )
    print(json.dumps(spec["metrics"], indent=2))


def export(arguments: argparse.Namespace) -> None:
    """Write a checkpoint as a version that Triton serves, and its spec into the configs beside it.

    Refuses a graph that differs from torch or has more than 16 MB.
    """
    from classifier.export import export as run

    run(arguments.checkpoint, arguments.out, _progress())


def evaluate(arguments: argparse.Namespace) -> None:
    """Print how well a score routes, beside random, always cheap, always strong and prompt length.

    --scores takes JSON lines with score, weak_score, strong_score and, for the baseline, prompt or length.
    --model scores --data with the version's own code; rows that it was trained on flatter it, the figures of its
    own test split are in its spec.json. The last line of stdout is one JSON document.
    """
    from classifier.data import read_routing
    from classifier.evaluate import judge_file, judge_version, table

    if arguments.scores is not None:
        judged, sources = judge_file(arguments.scores), []
    else:
        rows = read_routing(arguments.data)
        judged = judge_version(arguments.model, rows, _progress())
        sources = [row.source for row in rows]
    text, figures = table(judged, rounds=arguments.bootstrap)
    print(f"all, {len(judged.weak):,} prompts\n{text}")
    if arguments.by_source:
        for source in sorted(set(sources)):
            part = judged.rows([source == other for other in sources])
            print(f"\n{source}, {len(part.weak):,} prompts\n{table(part, rounds=arguments.bootstrap)[0]}")
    print(json.dumps(figures))


def render_config(arguments: argparse.Namespace) -> None:
    """Write a version's spec.json into config.pbtxt and configs/cpu.pbtxt, where the router reads it."""
    from classifier.render_config import render_config as run
    from classifier.render_config import rendered_names

    print(rendered_names(run(arguments.version)))


def time_eager(arguments: argparse.Namespace) -> None:
    """Time MiniLM in plain PyTorch on batches from stdin, for `make gpu-check`; prints one JSON document.

    Stdin is a JSON list of batches, each a list of the rows' lengths in tokens.
    """
    import torch

    from classifier.time_eager import time_eager as run

    torch.set_num_threads(arguments.threads)
    print(json.dumps(run(json.load(sys.stdin), pad_to=arguments.pad_to, seconds=arguments.seconds)))


def main() -> None:
    """Run one subcommand; exit code 1 and one line on stderr when the input is wrong."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnx", "safetensors", "tokenizers", "onnxruntime"):
            raise
        sys.exit(f"error: {error.name} is not installed: `make train-env`, then .venv-train/bin/python -m classifier")
    except ClassifierError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m classifier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        about = str(run.__doc__)
        command = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    training = add("train", train)
    training.add_argument("--data", type=Path, nargs="+", required=True, help="outcomes: files, or a directory")
    training.add_argument("--tasks", type=Path, required=True, help="task types: one file")
    training.add_argument("--out", type=Path, required=True, help="checkpoint directory")
    training.add_argument("--encoder", choices=["static"], default="static", help="kind of encoder")
    training.add_argument(
        "--leave-one-source-out", action="store_true", help="also judge each source by a model that never saw it"
    )
    training.add_argument("--threads", type=int, default=1, help="cores for torch")
    _add_recipe(training)

    exporting = add("export", export)
    exporting.add_argument("--checkpoint", type=Path, required=True, help="what `train --out` wrote")
    exporting.add_argument("--out", type=Path, default=SERVED, help="version directory")

    evaluating = add("evaluate", evaluate)
    which = evaluating.add_mutually_exclusive_group(required=True)
    which.add_argument("--scores", type=Path, help="JSON lines of scores and graded answers")
    which.add_argument("--model", type=Path, help="version directory; needs --data")
    evaluating.add_argument("--data", type=Path, nargs="+", default=[], help="outcomes for --model")
    evaluating.add_argument("--by-source", action="store_true", help="a table per source too")
    evaluating.add_argument("--bootstrap", type=int, default=500, help="resamples for the intervals")

    timing = add("time-eager", time_eager)
    timing.add_argument("--pad-to", type=int, help="pad every row to so many tokens (default: its batch's longest)")
    timing.add_argument("--seconds", type=float, default=2.0, help="how long to run")
    timing.add_argument("--threads", type=int, default=1, help="cores for torch, where there is no GPU")

    rendering = add("render-config", render_config)
    rendering.add_argument("--version", type=Path, default=SERVED, help="version directory")
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    for field in fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, help=field.metadata["help"])


def _progress() -> Callable[[str], None]:
    start = time.monotonic()

    def show(message: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {message}", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    main()
