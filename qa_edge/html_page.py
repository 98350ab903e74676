"""A page of HTML with its pictures inside, which loads nothing from elsewhere."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #2b323b; background: #fff; max-width: 860px; margin: 2.5em auto;
  padding: 0 1.2em; overflow-wrap: anywhere }
h1 { font-size: 1.5em; line-height: 1.25 } h2 { font-size: 1.15em; margin-top: 2.2em } h3 { font-size: 1em }
p.rule, footer { color: #444b55; font-size: 0.9em }
svg { width: 100%; height: auto; margin-bottom: 0.6em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9em }
th, td { text-align: right; padding: 0.15em 0.9em; border-bottom: 1px solid #e8eaee; font-weight: normal }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th { color: #444b55 }
footer { margin-top: 3em }
"""
_IDENTIFIER = re.compile(r'(\bid="|url\(#|href="#)')


def html_document(title: str, parts: Sequence[str], footer: str, *, style: str = "") -> str:
    """A whole page that loads nothing from elsewhere.

    :param parts: HTML, a line each.
    :param footer: text.
    :param style: CSS behind what all pages have.
    """
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}\n"
        f"<footer>{html.escape(footer)}</footer>\n</body>\n</html>\n"
    )


def inline_svg(figure: Any, name: str) -> str:
    """A figure as an element of a page; its ids begin with `name`, since those of a page must all differ."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # without it every run would write other ids
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return _IDENTIFIER.sub(rf"\g<1>{name}-", text[text.index("<svg") :]).strip()
