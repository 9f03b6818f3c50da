"""The page that shows the records and switches the faults: three fixed files, filled in by the browser.

Nothing that a record holds is ever part of them. The script asks the control interface and puts what it gets into the
page as text; the policy below lets the browser refuse anything else: no script but this one, and no text as HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sandbox.salesforce.answer import HTML, Answer, as_json

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)
_FILES: Final = {
    "/": ("page.html", HTML),
    "/page.css": ("page.css", "text/css;charset=UTF-8"),
    "/page.js": ("page.js", "text/javascript;charset=UTF-8"),
}


def load_page() -> dict[str, Answer]:
    """Read the page's files, and return the answer to each of its paths."""
    return {
        path: Answer(200, (Path(__file__).parent / name).read_bytes(), media_type, _HEADERS)
        for path, (name, media_type) in _FILES.items()
    }


def wrong_method() -> Answer:
    """Make the answer to anything but a look at the page."""
    return as_json(405, {"error": "the page can only be looked at"}, (b"allow", b"GET, HEAD"))
