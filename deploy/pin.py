"""Write the digest behind each image's tag into the Dockerfiles and the Compose file, so that a build never changes.

    make pin        needs Docker with buildx, and the registries

An image that has a digest gets the one that its tag has now. Review the change and commit it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (*sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile")), ROOT / "docker-compose.gpu.yml")

# `FROM name:tag` in a Dockerfile, `image: name:tag` in a Compose file; images of our own have no tag.
_REFERENCE = re.compile(r"^(FROM |\s+image: )([\w./-]+:[\w.-]+)(@sha256:[0-9a-f]{64})?", re.MULTILINE)


class PinError(RuntimeError):
    """A digest cannot be had; the message says of which image and why."""


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """Return a file's text with each image as name:tag@digest. `digest_of` maps name:tag to sha256:..."""
    return _REFERENCE.sub(lambda match: f"{match[1]}{match[2]}@{digest_of(match[2])}", text)


@cache
def digest_in_registry(image: str) -> str:
    """Ask the image's registry. Raises `PinError`."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - names from our own files
    except FileNotFoundError:
        raise PinError("docker is not installed; nothing was changed") from None
    digest = result.stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise PinError(f"{image}: no digest: {(result.stderr or result.stdout).strip()}; nothing was changed")
    return digest


def main() -> int:
    """Pin all files, or none when a digest is missing."""
    try:
        texts = {path: pinned(path.read_text(), digest_in_registry) for path in FILES}
    except PinError as error:
        print(f"pin: {error}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text)
        print(f"pinned {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
