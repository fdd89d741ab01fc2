"""The files of one model in Triton's repository: its versions, the config that serves them, and the shares.

    prompt_classifier/
        1/  2/          versions
        config.pbtxt    or configs/NAME.pbtxt, which `tritonserver --model-config-name=NAME` picks
        shares          "1=90, 2=10": what the router reads as `triton.versions`

In the config, `spec` is that of the version that serves; a second version has its own as `spec_2`.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from classifier.errors import VersionError
from classifier.files import whole
from classifier.render_config import SERVED_VERSIONS, SPEC_LINE, spec_line

SHARES_FILE: Final = "shares"
_FURTHER_SPEC: Final = re.compile(r'^parameters\s*\{\s*key:\s*"spec_\d+"\s.*\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shares:
    """Two versions, or one: `back` is the one to go back to, and `new` takes `percent` of the conversations."""

    back: str
    new: str
    percent: float

    def __str__(self) -> str:
        if self.back == self.new:
            return f"{self.new}=100"
        return f"{self.back}={100 - self.percent:g}, {self.new}={self.percent:g}"

    @property
    def serving(self) -> str | None:
        """The version that takes everything, None while there are two."""
        return {0.0: self.back, 100.0: self.new}.get(self.percent)


@dataclass(frozen=True, slots=True)
class Repository:
    """A model's directory, and the name of the config that Triton was started with ("" for config.pbtxt)."""

    model: Path
    config_name: str = ""

    @property
    def config(self) -> Path:
        """The config that Triton reads."""
        return self.model / "configs" / f"{self.config_name}.pbtxt" if self.config_name else self.model / "config.pbtxt"

    def served(self) -> list[str]:
        """The versions that the config names; raises VersionError when it names none."""
        if not self.config.is_file():
            raise VersionError(f"{self.config} is missing: name the model's directory, and --config-name as for Triton")
        found = SERVED_VERSIONS.search(self.config.read_text(encoding="utf-8"))
        if found is None:
            raise VersionError(f"{self.config} has no line `version_policy {{ specific {{ versions: [ 1 ] }} }}`")
        return re.findall(r"\d+", found.group(1))

    def shares(self) -> Shares | None:
        """What the shares file says, None when there is none; raises VersionError when it cannot be read."""
        path = self.model / SHARES_FILE
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8").strip()
        parts = re.fullmatch(r"(\d+)(?:=([\d.]+))?(?:[,\s]+(\d+)=([\d.]+))?", text)
        if parts is None:
            raise VersionError(f"{path} holds {text!r}; allowed are one or two versions, such as 1=90, 2=10")
        first, _, second, percent = parts.groups()
        return Shares(first, second or first, float(percent) if second else 100.0)

    def write_shares(self, shares: Shares) -> None:
        """Put the file in place in one step: a router never reads half of it."""
        _replace(self.model / SHARES_FILE, f"{shares}\n")

    def serve(self, serving: str, further: Sequence[str]) -> None:
        """Write the config for the version that serves and others beside it, each with its spec."""
        text = _FURTHER_SPEC.sub("", self.config.read_text(encoding="utf-8"))
        versions = ", ".join(sorted({serving, *further}, key=int))
        text = SERVED_VERSIONS.sub(f"version_policy {{ specific {{ versions: [ {versions} ]", text, count=1)
        lines = [spec_line(self.spec(serving)), *(spec_line(self.spec(one), f"spec_{one}") for one in further)]
        text, count = SPEC_LINE.subn(lambda _: "\n".join(lines), text)
        if count != 1:
            raise VersionError(f"{self.config}: found {count} lines with the parameter spec, exactly one is needed")
        _replace(self.config, text)

    def restore(self, text: str) -> None:
        """Write the config back as it was."""
        _replace(self.config, text)

    def spec(self, version: str) -> object:
        """A version's spec.json; raises VersionError."""
        path = self.model / version / "spec.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VersionError(f"{path} cannot be read: {error}") from None

    def add(self, candidate: Path) -> str:
        """Bring a version directory in under the next number, unless it is here already; returns the number.

        Triton's response cache and the router's keep what a number has said, so a number is never used twice.
        """
        if candidate.resolve().parent == self.model.resolve() and candidate.name.isdigit():
            return candidate.name
        number = str(1 + max((int(path.name) for path in self.model.iterdir() if path.name.isdigit()), default=0))
        with whole(self.model / number) as unfinished:
            shutil.copytree(candidate, unfinished, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        return number


def _replace(path: Path, text: str) -> None:
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
