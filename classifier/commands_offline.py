"""predict, import, evaluate and calibrate: a version's files or only its scores; neither torch nor Triton."""

import argparse
from pathlib import Path
from typing import Final

from classifier import convert, threshold
from classifier.command import Add, number_from, print_for_programs, progress_on_stderr
from classifier.errors import DataError
from classifier.metrics import Interval
from classifier.scored import OWN_SCORES, Price, Prices, Scored, scored_by_version, scored_file


def add_commands(add: Add) -> None:
    """Add the commands to the command line."""
    predicting = add("predict", predict)
    predicting.add_argument("--model", type=Path, required=True, help="version directory")
    predicting.add_argument("--input", type=Path, required=True, help="JSON lines with `prompt`, gzipped or not")
    predicting.add_argument("--output", type=Path, required=True, help="where to write them")

    importing = add("import", import_rows)
    importing.add_argument("--format", choices=convert.FORMATS, required=True, help="what --input is")
    importing.add_argument(
        "--input", type=Path, nargs="+", required=True, help="files; more than one of a decision log"
    )
    importing.add_argument("--output", type=Path, required=True, help="where to write JSON lines")
    importing.add_argument("--grades", type=Path, help="for a decision log: request_id, weak_score, strong_score")
    importing.add_argument("--weak", help="the cheap model, as the file calls it")
    importing.add_argument("--strong", help="the expensive model, as the file calls it")
    importing.add_argument("--text-column", default="text", help="of a CSV with labels: the prompts")
    importing.add_argument("--label-column", default="category", help="of a CSV with labels: their task types")

    evaluating = add("evaluate", evaluate)
    _add_sample(evaluating)
    evaluating.add_argument("--report", type=Path, help="folder for report.md, report.json and pictures")
    evaluating.add_argument("--by-source", action="store_true", help="print a table per source too")

    calibrating = add("calibrate", calibrate)
    target = calibrating.add_mutually_exclusive_group(required=True)
    target.add_argument("--target-strong-share", type=_share, metavar="SHARE", help="of the prompts, 0 to 1")
    target.add_argument(
        "--target-quality", type=_share, metavar="SHARE", help="of the always strong model's, 0 to 1; needs outcomes"
    )
    target.add_argument(
        "--max-cost-per-1k",
        type=number_from(0, kind=float),
        metavar="DOLLARS",
        help="for a thousand prompts; needs the prices",
    )
    calibrating.add_argument("--confidence", type=_share, default=0.95, help="that the target quality is reached")
    calibrating.add_argument("--score", default="need_strong", help=f"{', '.join(OWN_SCORES)}, or `score`")
    _add_sample(calibrating)


def predict(arguments: argparse.Namespace) -> None:
    """Score prompts offline with a version's own code, as Triton would.

    Each row of --input goes to --output with p_weak, p_strong, gain, need_strong, task_type, dimensions and length
    (in tokens) added. A labelled task_type or dimensions that was there is kept as given_task_type, given_dimensions.
    """
    from classifier.predict import predict_file

    rows = predict_file(arguments.model, arguments.input, arguments.output, progress_on_stderr())
    print(f"{rows:,} rows written to {arguments.output}")


def import_rows(arguments: argparse.Namespace) -> None:
    """Make rows to train and judge on of a decision log, a RouteLLM benchmark, labels or votes between two models.

    labels is a CSV, such as banking77's: a text, and the task type that it is.
    decision-log needs --grades: what the two models' answers to logged requests were worth, 0..1, by request_id.
    routellm (CSV) and preferences (JSON lines or a JSON list) need --weak and --strong, the models' names in the file.
    """
    progress = progress_on_stderr()
    if arguments.format == "decision-log":
        if arguments.grades is None:
            raise DataError("--format decision-log needs --grades: JSON lines of request_id, weak_score, strong_score")
        rows = convert.from_decision_log(arguments.input, arguments.grades, progress)
    elif arguments.format == "labels":
        columns = (arguments.text_column, arguments.label_column)
        rows = [row for path in arguments.input for row in convert.from_labels(path, *columns, progress)]
    else:
        if arguments.weak is None or arguments.strong is None:
            raise DataError(f"--format {arguments.format} needs --weak and --strong: the models' names in the file")
        read = convert.from_routellm if arguments.format == "routellm" else convert.from_preferences
        rows = [row for path in arguments.input for row in read(path, arguments.weak, arguments.strong, progress)]
    convert.write_rows(rows, arguments.output)
    print(f"{len(rows):,} rows written to {arguments.output}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print how well a score routes, beside random, always cheap, always strong and prompt length.

    --scores takes JSON lines with weak_score, strong_score and a router's `score`, or what `predict` has written.
    --model scores --data with the version's own code; rows that it was trained on flatter it, the figures of its
    own test split are in its spec.json. --report writes Markdown, JSON and pictures. With both prices the dollars are
    told too. Where stdout is no terminal, its last line is one JSON document of the figures.
    """
    from classifier.evaluate import evaluate as run
    from classifier.evaluate import table
    from classifier.report import write_report

    scored, about = _sample(arguments)
    evaluation = run(scored, prices=_prices(arguments), rounds=arguments.bootstrap)
    routing, task = evaluation["routing"], evaluation["task"]
    if routing is not None:
        print(f"all, {routing['rows']:,} prompts\n{table(routing)}")
        for source, part in routing["sources"].items() if arguments.by_source else ():
            always = {name: {"quality": part[name]} for name in ("always_cheap", "always_strong")}
            print(f"\n{source}, {part['rows']:,} prompts\n{table({**part, **always})}")
    if task is not None:
        print(
            f"task type right on {task['accuracy']['value']:.1%} of {task['rows']:,} (majority {task['majority']:.1%})"
        )
    if arguments.report is not None:
        write_report(arguments.report, evaluation, about)
        print(f"report in {arguments.report}")
    told = {} if task is None else {"task": {name: task[name] for name in ("rows", "accuracy", "majority")}}
    print_for_programs({"rows": evaluation["rows"], **(routing["routers"] if routing else {}), **told})


def calibrate(arguments: argparse.Namespace) -> None:
    """Print the threshold that reaches a target on a sample of your own prompts, and what to expect of it.

    The threshold is chosen on one half of the sample and judged on the other; near-duplicates stay on one side. The
    target quality is reached with the confidence asked for if new prompts are like the sample. A cost needs
    both prices; tokens come from the rows, else 4 characters are one and answers have --output-tokens. Where stdout
    is no terminal, its last line is one JSON document.
    """
    prices = _prices(arguments)
    scored, _ = _sample(arguments)
    if arguments.target_strong_share is not None:
        choose = threshold.for_strong_share(arguments.target_strong_share)
    elif arguments.target_quality is not None:
        scored = scored.rows(scored.has_outcome)
        choose = threshold.for_quality(arguments.target_quality, arguments.confidence)
    elif prices is not None:
        choose = threshold.for_cost(arguments.max_cost_per_1k, prices)
    else:
        raise DataError("--max-cost-per-1k needs --price-weak and --price-strong, such as --price-strong 2.5/10")
    found = threshold.calibrate(scored, arguments.score, choose, prices=prices, rounds=arguments.bootstrap)
    print(_POLICY.format(score=found.score, threshold=found.threshold))
    print(f"\nexpected, measured on {found.held_out:,} held-out prompts (95% interval):")
    for name, (label, form) in _EXPECTED.items():
        if name in found.expected:
            print(f"  {label:<32}{_shown(found.expected[name], form)}")
    print_for_programs(found.document())


_POLICY: Final = """\
policies:
  default:
    type: threshold
    score: {score}
    tiers:
      - {{model: cheap}}
      - {{model: expensive, from: {threshold}}}"""

_EXPECTED: Final = {
    "strong_share": ("strong calls", "{:.1%}"),
    "quality": ("mean score", "{:.3f}"),
    "quality_share": ("share of always strong's score", "{:.1%}"),
    "dollars_per_1k": ("dollars a thousand", "{:.4f}"),
    "dollars_per_1k_always_strong": ("dollars, always strong", "{:.4f}"),
}


def _add_sample(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--scores", type=Path, help="JSON lines with scores")
    which.add_argument("--model", type=Path, help="version directory; scores --data")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="prompts for --model: files")
    parser.add_argument("--bootstrap", type=number_from(1), default=500, help="resamples for the intervals")
    for side in ("weak", "strong"):
        parser.add_argument(
            f"--price-{side}", type=_price, metavar="IN/OUT", help=f"the {side} model's dollars per million tokens"
        )
    parser.add_argument(
        "--output-tokens", type=number_from(0), default=256, help="of an answer whose tokens are not told"
    )


def _sample(arguments: argparse.Namespace) -> tuple[Scored, str]:
    progress = progress_on_stderr()
    if arguments.scores is not None:
        return scored_file(arguments.scores, progress), f"The scores in `{arguments.scores.name}`."
    if not arguments.data:
        raise DataError("--model needs --data: JSON lines with the prompts to score")
    names = ", ".join(f"`{path.name}`" for path in arguments.data)
    scored = scored_by_version(arguments.model, arguments.data, progress)
    return scored, f"Version `{arguments.model.resolve().name}` on {names}."


def _prices(arguments: argparse.Namespace) -> Prices | None:
    weak, strong = arguments.price_weak, arguments.price_strong
    if (weak is None) != (strong is None):
        raise DataError("give both --price-weak and --price-strong, or neither")
    return None if weak is None else Prices(weak, strong, arguments.output_tokens)


def _price(text: str) -> Price:
    parts = text.split("/")
    try:
        price = Price(*map(float, parts))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not IN/OUT in dollars per million tokens, such as 2.5/10"
        ) from None
    if not (0 <= price.input < float("inf") and 0 <= price.output < float("inf")):
        raise argparse.ArgumentTypeError(f"{text!r}: prices are 0 or more")
    return price


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, such as 0.3")
    return share


def _shown(found: Interval, form: str) -> str:
    return f"{form.format(found.value)} [{form.format(found.low)}, {form.format(found.high)}]"
