"""What stands in no tracked file, and what the project and its lock file name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

from tests.repo.tree import ROOT, named, texts

# Written so that no pattern matches its own source.
FORBIDDEN = {
    "an unfinished thought": re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b"),
    "a home folder": re.compile(r"(?<![\w.~])/(?:home|User[s]|roo[t])/\w"),
    "a private package index": re.compile(
        r"(?:index|trusted)-(?:ur[l]|hos[t])\b|artifactor[y]|jfro[g]|devp[i]", re.IGNORECASE
    ),
    "a credential in a URL": re.compile(
        r"https?://[^\s/:@\"'{}<>]+:[^\s/:@\"'{}<>]+@(?!127\.|\S*\b(?:example|test|invalid)\b)[\w-]+\.\w"
    ),
}
if len(ROOT.parts) > 2:  # a checkout in, say, /app would forbid a common word
    FORBIDDEN["this checkout's own path"] = re.compile(rf"{re.escape(str(ROOT))}(?![\w-])")
PUBLIC = {"pypi.org", "files.pythonhosted.org"}


def forbidden(text: str) -> list[str]:
    """`line: what is wrong` for everything that does not belong into a public repository."""
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]}"
        for what, pattern in FORBIDDEN.items()
        for match in pattern.finditer(text)
    ]


def hosts(lock: str) -> set[str]:
    """Every host a lock file takes packages from."""
    return set(re.findall(r"https?://([^/\"]+)", lock))


def test_no_file_holds_what_does_not_belong_here() -> None:
    found = [
        f"{named(path)}:{problem}" for path, text in texts() if path.name != "uv.lock" for problem in forbidden(text)
    ]
    assert found == []


def test_the_lock_names_the_public_index_only() -> None:
    assert hosts((ROOT / "uv.lock").read_text("utf-8")) == PUBLIC


def test_the_lock_is_one_of_this_project() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    locked = next(package for package in lock["package"] if package["name"] == project["name"])
    asked = {re.split(r"[^\w.-]", name)[0].lower() for name in project["dependencies"]}
    assert {item["name"] for item in locked["metadata"]["requires-dist"]} == asked


def test_the_pythons_that_are_promised_are_those_that_it_installs_on() -> None:
    """On a newer one the packages without a wheel for it would end pip in a failed C build; this way it says why."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"])
    assert bounds is not None
    allowed = [f"Programming Language :: Python :: 3.{minor}" for minor in range(int(bounds[1]), int(bounds[2]))]
    assert [line for line in project["classifiers"] if ":: Python :: 3." in line] == allowed


def test_time_zones_need_nothing_of_the_system() -> None:
    """Many container images have none, not even UTC. In a checkout a package of the dev group would bring tzdata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert any(name.startswith("tzdata") for name in project["dependencies"])
    program = "from tidegate.config import Config; Config(timezone='Europe/Berlin')"
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONTZPATH": ""}, check=True)


def test_the_checks_can_fail() -> None:
    bad = ["x  # TO" + "DO later", "/hom" + "e/me/x", "pip --index-u" + "rl x", "http://me:" + "pw@db.internal/"]
    assert [len(forbidden(line)) for line in bad] == [1, 1, 1, 1]
    assert forbidden("~/root/x https://example.org/home/page") == []
    assert hosts('"https://mirror.invalid/simple"') == {"mirror.invalid"}
