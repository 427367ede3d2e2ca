"""Draw docs/report.png: the demo's report on a desktop and on a phone, side by side.

    uv run --all-packages --group demo python scripts/report_picture.py

Runs the demo, explains its run with `rankllm-infer report` and takes two screenshots. Needs a headless Chromium
(scripts/test-browser installs one) and writes the same picture again as long as neither the model nor the page changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "report.png"
HEIGHT = 600
"""Of both screenshots, in CSS pixels."""
SCALE = 1.75
"""Pixels per CSS pixel: sharp at the width of a README on most screens, and still a small file."""
COLOURS = 128
OPEN_QUERY = "#q2"
"""The query that the phone shows: its relevant passages come from far down the list."""


def main() -> None:
    """Write the picture."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from browser import Page, open_browser

    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder, "profile")) as browser:
        report = write_report(Path(folder))
        desktop = Page(browser, report, width=700, height=HEIGHT, scale=SCALE)
        desktop.evaluate("document.querySelector('#figures').scrollIntoView()")
        desktop.screenshot(Path(folder, "desktop.png"))
        phone = Page(browser, report, width=380, height=HEIGHT, scale=SCALE, is_dark=True)
        phone.evaluate(f"{{ const q = document.querySelector('{OPEN_QUERY}'); q.open = true; q.scrollIntoView(); }}")
        phone.screenshot(Path(folder, "phone.png"))
        side_by_side(Path(folder, "desktop.png"), Path(folder, "phone.png"))


def write_report(folder: Path) -> Path:
    """Run the demo and explain its run, the two runs called after what ranked them."""
    rankllm = str(Path(sys.executable).with_name("rankllm-infer"))
    subprocess.run([rankllm, "demo", "--output-dir", str(folder)], check=True)
    shutil.copy(folder / "bm25.trec", folder / "BM25.trec")
    shutil.copy(folder / "reranked.trec", folder / "smollm2-pointwise.trec")
    files = ["smollm2-pointwise.trec", "--baseline", "BM25.trec", "--requests", "requests.jsonl"]
    command = [rankllm, "report", *files, "--qrels", "qrels.txt", "-m", "nDCG@10", "--output", "report.html"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "report.html"


def side_by_side(left: Path, right: Path) -> None:
    """Join two screenshots of one height, with few colours."""
    parts = [Image.open(path).convert("RGB") for path in (left, right)]
    joined = Image.new("RGB", (sum(part.width for part in parts), parts[0].height))
    joined.paste(parts[0], (0, 0))
    joined.paste(parts[1], (parts[0].width, 0))
    # By coverage: the few pixels of the grades' greens would be merged with the greys by their number.
    few = joined.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
