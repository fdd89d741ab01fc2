"""Copy a version's spec into the model's Triton configs, where the router reads it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import VersionError

SPEC_LINE = re.compile(r'^parameters\s*\{\s*key:\s*"spec"\s.*$', re.MULTILINE)
SERVED_VERSIONS = re.compile(
    r"^version_policy\s*:?\s*\{\s*specific\s*:?\s*\{\s*versions\s*:\s*\[([\d\s,]*)\]", re.MULTILINE
)


def render_config(version: Path) -> list[Path]:
    """Put `version`/spec.json into the configs beside the version that serve it; returns the files that it wrote."""
    spec_file = version / "spec.json"
    if not spec_file.is_file():
        raise VersionError(f"{spec_file} is missing: export a version first, `python -m classifier export --help`")
    line = spec_line(json.loads(spec_file.read_text(encoding="utf-8")))
    configs = [config for config in all_configs(version.parent) if serves(config, version.name)]
    for config in configs:
        config.write_text(_with_spec(config, line), encoding="utf-8")
    return configs


def all_configs(model: Path) -> list[Path]:
    """A model's config.pbtxt and those that `tritonserver --model-config-name` can pick."""
    return [config for config in (model / "config.pbtxt", *sorted(model.glob("configs/*.pbtxt"))) if config.is_file()]


def serves(config: Path, version: str) -> bool:
    """Whether the config's version_policy names this version; one without such a policy serves whatever is there."""
    policy = SERVED_VERSIONS.search(config.read_text(encoding="utf-8"))
    return policy is None or version in re.split(r"[\s,]+", policy.group(1))


def spec_line(spec: object, key: str = "spec") -> str:
    """The one line of protobuf text that carries `spec` as the parameter named `key`."""
    return f'parameters {{ key: "{key}" value {{ string_value: "{protobuf_escape(json.dumps(spec))}" }} }}'


def protobuf_escape(text: str) -> str:
    """ASCII text as the inside of a double-quoted protobuf text string; json.dumps leaves nothing else in it."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _with_spec(config: Path, line: str) -> str:
    text = config.read_text(encoding="utf-8")
    # A function, because a replacement string would have its backslashes interpreted.
    replaced, count = SPEC_LINE.subn(lambda _: line, text)
    if count != 1:
        raise VersionError(
            f'{config}: found {count} lines that start with `parameters {{ key: "spec"`; exactly one is '
            "needed, on a line of its own, so that it can be replaced"
        )
    return replaced


def rendered_names(configs: Sequence[Path]) -> str:
    """The files for a message, or what their absence means."""
    return ", ".join(map(str, configs)) or "no config beside the version serves it, nothing to render"
