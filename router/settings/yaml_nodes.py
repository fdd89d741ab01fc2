"""YAML read into nodes that know where they stand, with the environment filled in.

Scalars stay text: the reader of a key knows whether it must be a number or a name, so `model: no` is the
model "no", and `port: ${PORT:-8084}` is a number. A variable's value can never add structure to the file.

    ${VAR}            the variable's value; an error when it is not set or empty
    ${VAR:-default}   the default when it is not set or empty
    ${file:/a/path}   what the file holds, such as a mounted secret; an error when it cannot be read
    ${file:/a/path:-default}   the default when there is no such file
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from router.errors import ConfigurationError

MAX_FILE_BYTES = 256 * 1024
MAX_SECRET_BYTES = 16 * 1024
MAX_PROBLEMS = 50

Value = str | None | tuple["Node", ...] | dict[str, "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place: text, None for null, a tuple for a list, a dict for a mapping.

    `line` is where its key (or list item) stands, 0 for a value that is not from the file. `written` is a
    scalar as the file spells it: errors show this, because the environment's values may be secrets. `broken`
    says that its value is not known, and that this has been noted.
    """

    value: Value
    source: str
    line: int
    path: str
    written: str = ""
    broken: bool = False

    @property
    def place(self) -> str:
        """`router.yaml:14: models.cheap.price`, the start of every complaint about this node."""
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.path}" if self.path else where


class Problems:
    """Everything that is wrong with a file, so that one reading of the answer mends it all."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, node: Node, message: str) -> None:
        """Note a problem; give up at MAX_PROBLEMS, where a list no longer helps."""
        self._found.append((node.line, f"{node.place}: {message}"))
        if len(self._found) >= MAX_PROBLEMS:
            self._found.append((2**62, f"{node.source}: more than {MAX_PROBLEMS} problems, stopped looking"))
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise ConfigurationError with every problem in the order of the file."""
        if self._found:
            by_line = sorted(self._found, key=lambda found: found[0])
            raise ConfigurationError(list(dict.fromkeys(message for _, message in by_line)))


def shown(text: str) -> str:
    """Quote `text` for an error message: short, on one line, printable, without a URL's password or query."""
    text = re.sub(r"://[^/@\s]*@", "://[REDACTED]@", text)
    text = re.sub(r"(://[^?\s]*\?).*", r"\1[REDACTED]", text)
    short = text if len(text) <= 80 else text[:77] + "..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def join_path(path: str, key: str) -> str:
    """`models` and `cheap` make `models.cheap`; a key with dots or spaces is quoted."""
    step = key if re.fullmatch(r"[\w/<-]{1,80}", key) else f"[{shown(key)}]"
    return f"{path}.{step}" if path and not step.startswith("[") else path + step


def read_yaml(path: Path, environ: Mapping[str, str], problems: Problems) -> Node:
    """Read `path` into nodes; equal keys, foreign tags and unset variables are noted in `problems`.

    Raises ConfigurationError when it is missing, too big, not UTF-8, empty, or not one YAML document.
    """
    source = str(path)
    references: list[str] = []

    def hide(match: re.Match[str]) -> str:
        references.append(match.group(0))
        return f"\ue000{len(references) - 1}\ue001"

    # Inside `{...}` YAML takes the brace of `${VAR}` for its own. A stand-in of harmless characters avoids
    # that, keeps every line number, and lets values in only after the structure is settled.
    text = _REFERENCE.sub(hide, _read_text(path, source))
    try:
        composed = _compose(text, source, references)
        return _Converter(source, references, environ, problems).root(composed)
    except RecursionError:
        raise ConfigurationError([f"{source}: nested too deeply"]) from None


def _compose(text: str, source: str, references: list[str]) -> yaml.Node:
    try:
        composed = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([_original(_syntax_problem(error, source), references)]) from None
    except yaml.reader.ReaderError as error:
        line = f"{source}:{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigurationError([f"{line}: a control character, which YAML does not allow"]) from None
    except (ValueError, OverflowError):  # PyYAML on an escape or a version number out of range
        raise ConfigurationError([f"{source}: not valid YAML: a number is out of range"]) from None
    if composed is None:
        raise ConfigurationError([f"{source}: the file is empty; docs/configuration.md has an example"])
    return composed


def _syntax_problem(error: yaml.MarkedYAMLError, source: str) -> str:
    """Say what YAML says, but not its quotation of the file: a key may stand there."""
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    where = f"{source}:{mark.line + 1}" if mark else source
    context = f"{error.context}, which starts on line {start.line + 1}, " if error.context and start else ""
    return f"{where}: not valid YAML: {context}{error.problem}"


def _read_text(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        advice = "name another, or write it; docs/configuration.md has an example"
        raise ConfigurationError([f"{source}: there is no such file: {advice}"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise ConfigurationError([f"{source}: cannot be read: {reason}"]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError([f"{source}: larger than {MAX_FILE_BYTES} bytes; is this the configuration?"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{source}:{line}: not UTF-8; save the file as UTF-8"]) from None


_REFERENCE = re.compile(r"\$\{[^}\n]*\}")
_REFERENCE_PARTS = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}\n]*))?\}")
_FILE_REFERENCE = re.compile(r"\$\{file:([^}\n]*?)(?::-([^}\n]*))?\}")
_STAND_IN = re.compile("\ue000([0-9]{1,6})\ue001")


def _original(text: str, references: list[str]) -> str:
    return _STAND_IN.sub(lambda match: _reference(match, references), text)


def _reference(match: re.Match[str], references: list[str]) -> str:
    index = int(match.group(1))
    return references[index] if index < len(references) else match.group(0)


def resolve(reference: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the value of one `${...}` and None, or "" and what is wrong with it."""
    if from_file := _FILE_REFERENCE.fullmatch(reference):
        return _read_file(Path(from_file.group(1)), from_file.group(2))
    parts = _REFERENCE_PARTS.fullmatch(reference)
    if parts is None or "${" in (parts.group(2) or ""):
        return "", "is not a variable; write ${NAME}, ${NAME:-default} or ${file:/path}, not nested"
    name, default = parts.groups()
    value = environ.get(name)
    if default is not None:
        return value or default, None
    if not value:  # a variable that Compose passes on without having it is set, to nothing
        hint = f"set it, or give a default: ${{{name}:-value}}"
        return "", f"needs the environment variable {name}, which is {'not set' if value is None else 'empty'}; {hint}"
    return value, None


def _read_file(path: Path, default: str | None) -> tuple[str, str | None]:
    """Return a file's text without the line break at its end and None, or "" and what is wrong with it.

    A `default` is taken when there is no such file, and only then.
    """
    if not path.is_absolute():
        return "", "needs an absolute path, such as ${file:/run/secrets/api_key}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return "", "names a file that is not UTF-8 text"
    except (OSError, ValueError) as error:
        if default is not None and isinstance(error, FileNotFoundError):
            return default, None
        return "", f"names a file that cannot be read: {getattr(error, 'strerror', None) or 'not a usable path'}"
    if len(data) > MAX_SECRET_BYTES:
        return "", f"names a file of more than {MAX_SECRET_BYTES} bytes; is this the secret?"
    return (text, None) if text else ("", "names a file that is empty")


class _Converter:
    """Turns PyYAML's nodes into ours: fills in variables, refuses equal keys and tags, merges `<<`."""

    def __init__(self, source: str, references: list[str], environ: Mapping[str, str], problems: Problems) -> None:
        self._source = source
        self._references = references
        self._environ = environ
        self._problems = problems
        self._unfilled: dict[str, list[Node]] = {}
        self._done: dict[int, Node | None] = {}  # None: begun. An alias is converted once, however often used.

    def root(self, node: yaml.Node) -> Node:
        """Convert the whole document; a variable that is missing in many places is one problem."""
        root = self.convert(node, node.start_mark.line + 1, "")
        for complaint, places in self._unfilled.items():
            more = f" ({len(places) - 1} more like this)" if len(places) > 1 else ""
            self._problems.add(places[0], complaint + more)
        return root

    def convert(self, node: yaml.Node, line: int, path: str) -> Node:
        """Convert `node`, whose key stands on `line`."""
        if id(node) in self._done:
            done = self._done[id(node)]
            if done is None:
                raise ConfigurationError([f"{self._source}:{line}: {path}: an alias that contains itself"])
            return done
        self._done[id(node)] = None
        converted = self._convert(node, line, path)
        self._done[id(node)] = converted
        return converted

    def _convert(self, node: yaml.Node, line: int, path: str) -> Node:
        here = Node(None, self._source, line, path)
        if node.tag not in _TAGS:
            self._problems.add(here, f"the tag {shown(node.tag)} is not allowed; remove it")
        if isinstance(node, yaml.ScalarNode):
            text, written = self._scalar(node, here)
            null = text is None or (node.style is None and text in ("", "~", "null", "Null", "NULL"))
            return Node(None if null else text, self._source, line, path, written, broken=text is None)
        if isinstance(node, yaml.SequenceNode):
            items = (
                self.convert(item, item.start_mark.line + 1, f"{path}[{index}]")
                for index, item in enumerate(node.value)
            )
            return Node(tuple(items), self._source, line, path)
        return Node(self._mapping(node, path), self._source, line, path)

    def _mapping(self, node: yaml.Node, path: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            here = Node(None, self._source, line, path)
            if key_node.tag == _MERGE:
                for name, value in self._merge(value_node, line, path):
                    merged.setdefault(name, value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(here, "a key must be plain text")
                continue
            key, written = self._scalar(key_node, here)
            value = self.convert(value_node, line, join_path(path, written))
            if key is None:
                continue
            if key in own:
                first = Node(None, self._source, line, join_path(path, written))
                self._problems.add(first, f"given twice, first on line {own[key].line}; keep one")
            else:
                own[key] = value
        return merged | own

    def _merge(self, node: yaml.Node, line: int, path: str) -> Iterator[tuple[str, Node]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            value = self.convert(part, line, join_path(path, "<<")).value
            if isinstance(value, dict):
                yield from value.items()
            else:
                self._problems.add(Node(None, self._source, line, path), "`<<` merges mappings only")

    def _scalar(self, node: yaml.ScalarNode, here: Node) -> tuple[str | None, str]:
        """Return the text with variables filled in (None when one is not set), and as the file has it."""
        written = _original(node.value, self._references)
        complaints = ["has a `${` without its `}`"] if "${" in node.value else []

        def fill(match: re.Match[str]) -> str:
            value, complaint = resolve(_reference(match, self._references), self._environ)
            complaints.extend([complaint] if complaint else [])
            return value

        text = _STAND_IN.sub(fill, node.value)
        for complaint in complaints:
            self._unfilled.setdefault(f"{shown(written)} {complaint}", []).append(here)
        return None if complaints else text, written


_MERGE = "tag:yaml.org,2002:merge"
_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value", "merge")
}
