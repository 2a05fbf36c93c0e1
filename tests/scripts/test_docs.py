# SPDX-License-Identifier: MIT
"""README.md and docs/ say what is true: their programs run, their files exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIMIT = 60  # seconds; each program needs less than two

# A block of Python, with the comment before it that says how it is run and what it prints.
SAMPLE = re.compile(
    r"(?:^<!-- run:? ?(?P<options>[^\n]*?) ?-->\n)?"
    r"^```python\n(?P<program>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
# What looks like a file or folder of the tree, in the form that the pages use.
PATH = re.compile(
    r"`((?:python|gopool|bridge|pyapi|tests|docs|build_backend|examples)/[\w./-]+|setup\.py)`"
)


class Sample(NamedTuple):
    """One program of a page; `options` are the interpreter's, None where nothing marks it."""

    page: Path
    line: int
    options: list[str] | None
    program: str
    output: str | None


def samples() -> list[Sample]:
    """Every block of Python in the pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in SAMPLE.finditer(text):
            options = match["options"]
            found.append(
                Sample(
                    page,
                    text.count("\n", 0, match.start()) + 1,
                    None if options is None else options.split(),
                    match["program"],
                    match["output"],
                )
            )
    return found


SAMPLES = samples()


def sample_id(sample: Sample) -> str:
    return f"{sample.page.name}:{sample.line}"


def run(folder: Path, options: list[str], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a page as a script, away from the Go sources' folder."""
    script = folder / "sample.py"
    script.write_text(program)
    environment = {k: v for k, v in os.environ.items() if k != "GOPOOL_START_METHOD"}
    return subprocess.run(
        [sys.executable, *options, str(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_samples_are_found():
    """A changed form of the pages must not turn these tests into nothing."""
    readme = [sample for sample in SAMPLES if sample.page.name == "README.md"]
    assert len(readme) >= 4
    assert ["-m", "gopool"] in [sample.options for sample in readme]


@pytest.mark.parametrize("sample", SAMPLES, ids=sample_id)
def test_sample_is_marked(sample):
    """Every block of Python is a program that is run, and says what it prints."""
    assert sample.options is not None, "no <!-- run --> comment in the line before it"
    assert sample.output, "no ```text block after it"


@pytest.mark.scripts
@pytest.mark.parametrize("sample", SAMPLES, ids=sample_id)
def test_sample_prints_what_the_page_shows(sample, tmp_path):
    """A program of a page ends well and prints exactly what stands below it."""
    done = run(tmp_path, sample.options or [], sample.program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == sample.output


@pytest.mark.scripts
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_first_sample_under_other_start_methods(method, tmp_path):
    """What README.md shows for `--start-method` works on its first program."""
    sample = SAMPLES[0]
    done = run(tmp_path, [*sample.options, "--start-method", method, "--stats"], sample.program)
    assert (done.returncode, done.stdout) == (0, sample.output)
    figures = "gopool: the Go core supervised 4 pool workers (0 crashed); "
    assert done.stderr.startswith(figures), done.stderr


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    titles = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every link to a file of the tree finds it, and its heading."""
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        found = (page.parent / target) if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    """Every path that a page names is there, by the name it has."""
    named = PATH.findall(page.read_text())
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def test_picture_names_real_files():
    """Each file in README.md's picture of a task's way is one of the tree."""
    text = (ROOT / "README.md").read_text()
    (picture,) = re.findall(r"^```\n( caller .*?)^```", text, re.MULTILINE | re.DOTALL)
    names = re.findall(r"[\w/]+\.(?:py|go)\b", picture)
    assert len(names) > 15
    folders = ("", "python/gopool", "python/gopool/_worker", "bridge", "gopool")
    missing = [n for n in names if not any((ROOT / folder / n).is_file() for folder in folders)]
    assert not missing


def test_readme_names_real_targets():
    """Every `make` command in the pages is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: {target}"
