# SPDX-License-Identifier: Apache-2.0
"""Self-contained pages: templates with everything escaped, one file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import jinja2

from . import charts, film, formatting

# The page plays only the clips in view, and none for readers who asked their system for less motion.
_SCRIPT = """
const still = matchMedia("(prefers-reduced-motion: reduce)");
const watcher = new IntersectionObserver((entries) => entries.forEach(({target, isIntersecting}) => {
  if (isIntersecting && !still.matches) target.play().catch(() => {}); else target.pause();
}), {threshold: 0.25});
document.querySelectorAll("video").forEach((clip) => watcher.observe(clip));
"""


def render_page(template: str, **context: object) -> str:
    """Render a template of this package's `templates` folder; every value is escaped as text.

    Args:
        template (`str`): File name, for example `"report.html"`.
        context (`object`): Names the template uses.

    Returns:
        `str`: A whole HTML document, or what the template is of one. A document's content security policy forbids every
        request, and every script but the page's own: text that slips through as markup could not run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cyclemimic.evaluation", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=formatting.format_number,
        percent=formatting.format_percent,
        duration=formatting.format_duration,
        size=formatting.format_bytes,
    )
    environment.globals.update(
        image_uri=film.image_uri,
        clip_uri=film.clip_uri,
        sample_strip=film.sample_strip,
        change_overlay=film.change_overlay,
        line_chart=charts.line_chart,
        code_tokens=code_tokens,
    )
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return environment.get_template(template).render(script=_SCRIPT, script_digest=digest, **context)


def code_tokens(codes: Sequence[int | None]) -> list[tuple[str, int]]:
    """Text and hue (degrees) of each code's chip; steps of the golden angle keep neighbouring codes far apart."""
    return [("·", 0) if code is None else (str(int(code)), round(int(code) * 137.508) % 360) for code in codes]
