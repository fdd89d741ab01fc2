"""Keeps pages of other sites, open in an operator's browser, from acting on the admin listener.

A browser sends a POST of any page to any address that its user can reach, 127.0.0.1 too; the page only cannot read the
answer. But it says where a request comes from, and a page cannot change that: by `Sec-Fetch-Site` on HTTPS and on
localhost, else by `Origin`. Without both it is no browser.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from router.errors import ForeignSite

_READS = ("GET", "HEAD", "OPTIONS")
_OWN = ("same-origin", "none")  # a page of ours, or what the user typed


def same_site_only(request: Request) -> None:
    """A FastAPI dependency: raise ForeignSite for what another site's page asks for, unless it only reads."""
    if request.method not in _READS and is_foreign(request.headers):
        raise ForeignSite("Only the router's own page and programs may do this, and another site's page has sent it.")


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of another site, by its headers in lower case."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in _OWN
    return origin is not None and origin.partition("://")[2] != headers.get("host")
