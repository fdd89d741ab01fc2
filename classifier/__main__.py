"""Train, export, evaluate, calibrate and promote the prompt classifier.

  python -m classifier train --data FILE... --encoder minilm --mode finetune --out CHECKPOINT
  python -m classifier export --checkpoint CHECKPOINT --out triton_models/prompt_classifier/1
  python -m classifier export --profile tensorrt --version triton_models/prompt_classifier/2 --out REPOSITORY
  python -m classifier predict --model triton_models/prompt_classifier/1 --input X.jsonl --output Y.jsonl
  python -m classifier evaluate --scores Y.jsonl --report REPORT
  python -m classifier calibrate --scores Y.jsonl --target-strong-share 0.3
  python -m classifier promote --candidate VERSION --model DIR --data HELD_OUT --router URL
  python -m classifier rollback --model DIR --router URL
  python -m classifier score-log --input LOG... --out DIR --triton HOST:PORT
  python -m classifier render-config
  python -m classifier time-eager

`train`, `export` and `time-eager` need torch (`make train-env` makes .venv-train with it); the others do not.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from classifier import commands_batch, commands_offline, commands_serving
from classifier.command import number_from, progress_on_stderr
from classifier.errors import CheckpointError, ClassifierError, VersionError
from classifier.recipe import DataRecipe, FinetuneRecipe, StaticRecipe

Recipe = TypeVar("Recipe", DataRecipe, StaticRecipe, FinetuneRecipe)

SERVED = Path(__file__).parent.parent / "triton_models" / "prompt_classifier" / "1"


def train(arguments: argparse.Namespace) -> None:
    """Train a classifier and write a checkpoint (safetensors, spec.json, tokenizer.json).

    finetune: everything, from MiniLM's weights, on 5,000 rows or more. heads: the last layer of the shipped version,
    on 250 or more. calibrate: only its temperature and bias, on 100 or more. The rows are split by near-duplicate
    group: 80% train, 5% calibrate, 15% test; the figures in spec.json are those of the test split. Deterministic for
    a seed. A run that was killed goes on when it is started again. Several GPUs: `accelerate launch -m classifier`.
    """
    import torch

    from classifier.labelled import read_labelled, read_task_types
    from classifier.starting_point import known_task_types
    from classifier.train import Plan
    from classifier.train import train as run

    torch.set_num_threads(arguments.threads)
    progress = progress_on_stderr()
    names = arguments.task_types
    task_types = known_task_types(arguments.encoder, arguments.mode) if names is None else read_task_types(names)
    plan = Plan(
        encoder=arguments.encoder,
        mode=arguments.mode,
        out=arguments.out,
        task_types=task_types,
        data=_recipe(DataRecipe, arguments),
        static=_recipe(StaticRecipe, arguments),
        transformer=_recipe(FinetuneRecipe, arguments),
        teacher=arguments.teacher,
        own_set=arguments.mode == "finetune" if arguments.own_set is None else arguments.own_set,
        hold_out_sources=arguments.leave_one_source_out,
        command=" ".join(["python -m classifier", *sys.argv[1:]]),
    )
    spec = run(read_labelled(arguments.data, progress, task_types), plan, progress)
    if spec is not None:
        print(json.dumps(spec["metrics"], indent=2))


def export(arguments: argparse.Namespace) -> None:
    """Write a checkpoint as a version that Triton serves, and its spec into the configs beside it.

    Refuses a graph that differs from torch, or that is too large to be committed.
    With --profile tensorrt: write a version as a whole model repository for Triton's onnxruntime backend.
    """
    if arguments.profile == "tensorrt":
        from classifier.tensorrt_profile import render

        if arguments.version is None or arguments.out == SERVED:
            raise VersionError("--profile tensorrt needs --version, an exported one, and --out, a new repository")
        print("\n".join(map(str, render(arguments.version, arguments.out))))
        return
    if arguments.checkpoint is None:
        raise CheckpointError("--checkpoint is missing: what `python -m classifier train --out` wrote")
    from classifier.export import export as run

    run(arguments.checkpoint, arguments.out, progress_on_stderr())


def import_nvidia(arguments: argparse.Namespace) -> None:
    """Write NVIDIA's own classifier, prompt-task-and-complexity-classifier, as a version that Triton serves.

    DIR has model.safetensors, config.json and tokenizer.json. Task types and dimensions are what NVIDIA's code says;
    there is no outcome head.
    """
    from classifier.import_nvidia import import_nvidia as run

    run(arguments.source, arguments.out, progress_on_stderr())


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
        if (error.name or "").partition(".")[0] in ("tritonclient", "prometheus_client"):
            sys.exit(f"error: {error.name} is not installed: run this in the router's environment, .venv/bin/python")
        if error.name not in ("torch", "onnx", "safetensors", "tokenizers", "onnxruntime", "accelerate"):
            raise
        sys.exit(f"error: {error.name} is not installed: `make train-env`, then .venv-train/bin/python -m classifier")
    except ClassifierError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


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
    training.add_argument("--data", type=Path, nargs="+", default=[], help="labelled prompts: JSON lines")
    training.add_argument("--out", type=Path, required=True, help="checkpoint directory")
    training.add_argument(
        "--encoder", default="static", help="static, minilm, a directory, or a hub's organisation/name of a BERT"
    )
    training.add_argument("--mode", choices=["calibrate", "heads", "finetune"], default="finetune", help="see above")
    training.add_argument(
        "--task-types", type=Path, help="a JSON list of your own task types, in place of those that the encoder has"
    )
    training.add_argument("--teacher", type=Path, help="a checkpoint that a static encoder learns from too")
    training.add_argument(
        "--own-set",
        action=argparse.BooleanOptionalAction,
        help="learn from classifier/data/prompts too, for task types and dimensions (default: when finetuning)",
    )
    training.add_argument(
        "--leave-one-source-out", action="store_true", help="also judge each source by a model that never saw it"
    )
    training.add_argument("--threads", type=number_from(1), default=os.cpu_count(), help="cores for torch")
    for recipe in (DataRecipe, StaticRecipe, FinetuneRecipe):
        _add_recipe(training, recipe)

    exporting = add("export", export)
    exporting.add_argument("--checkpoint", type=Path, help="what `train --out` wrote")
    exporting.add_argument("--out", type=Path, default=SERVED, help="version directory; with tensorrt, repository")
    exporting.add_argument("--profile", choices=["python", "tensorrt"], default="python", help="way to serve it")
    exporting.add_argument("--version", type=Path, help="exported version directory, for --profile tensorrt")

    importing = add("import-nvidia", import_nvidia)
    importing.add_argument("source", metavar="DIR", type=Path, help="a download of NVIDIA's checkpoint")
    importing.add_argument("--out", type=Path, required=True, help="version directory")

    commands_offline.add_commands(add)
    commands_serving.add_commands(add)
    commands_batch.add_commands(add)

    timing = add("time-eager", time_eager)
    timing.add_argument(
        "--pad-to", type=number_from(1), help="pad every row to so many tokens (default: its batch's longest)"
    )
    timing.add_argument("--seconds", type=number_from(0, kind=float), default=2.0, help="how long to run")
    timing.add_argument("--threads", type=number_from(1), default=1, help="cores for torch, where there is no GPU")

    rendering = add("render-config", render_config)
    rendering.add_argument("--version", type=Path, default=SERVED, help="version directory")
    return parser


def _add_recipe(parser: argparse.ArgumentParser, recipe: type[Any]) -> None:
    group = parser.add_argument_group(recipe.__name__, recipe.__doc__)
    for field in fields(recipe):
        flag = "--" + field.name.replace("_", "-")
        kind = number_from(
            field.metadata["least"], field.metadata["most"], cast("type[int | float]", type(field.default))
        )
        group.add_argument(flag, type=kind, default=field.default, help=field.metadata["help"])


def _recipe(kind: type[Recipe], arguments: argparse.Namespace) -> Recipe:
    return kind(**{field.name: getattr(arguments, field.name) for field in fields(cast("Any", kind))})


if __name__ == "__main__":
    main()
