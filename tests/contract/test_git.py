"""Prompts at any git ref, on real repositories: what is found, what is refused, and that nothing of them is run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.repository import Repo
from tidegate.core.artifact import digest
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Unusable
from tidegate.prompts import git as git_module
from tidegate.prompts.files import load_prompt
from tidegate.prompts.git import check_ref, find_repository, git_state
from tidegate.prompts.history import history
from tidegate.prompts.objects import Objects
from tidegate.prompts.sides import Side, Sides
from tidegate.prompts.source import MAX_BYTES

P = "support/answer"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "shop").init()
    made.prompt("One.")
    made.commit("the first")
    return made


def at(repo: Repo, ref: str, under: str = "") -> Side:
    return Sides(None, repo.root / under / "prompts").find(P, ref)


def here(repo: Repo, under: str = "") -> str:
    return digest(load_prompt(repo.root / under / "prompts", P).artifact)


# what is found


def test_a_prompt_is_read_from_any_commit_without_a_checkout(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    one = here(repo)
    repo.git("tag", "v1.0")
    repo.prompt("Two.")
    repo.commit()
    assert at(repo, "HEAD").digest == here(repo) == at(repo, "main").digest == at(repo, "git:main").digest
    for ref in ("HEAD~1", "HEAD^", first, first[:10], "v1.0", "refs/tags/v1.0"):
        assert (at(repo, ref).digest, at(repo, ref).commit) == (one, first)
    assert repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize("attributes", ["* text eol=crlf", "* -text", "* text=auto"])
def test_the_digest_in_git_is_that_of_the_working_tree_whatever_the_line_ends(repo: Repo, attributes: str) -> None:
    """Git stores what the attributes say, a checkout writes what they say; the digest sees LF in both."""
    repo.write(".gitattributes", attributes)
    file = repo.root / "prompts" / P / "prompt.md"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    repo.commit()
    repo.git("config", "core.autocrlf", "true")
    assert at(repo, "HEAD").digest == here(repo)
    file.unlink()
    repo.git("checkout", "--", ".")
    assert at(repo, "HEAD").digest == here(repo)


def test_a_project_may_be_a_folder_of_its_repository(repo: Repo) -> None:
    repo.prompt("Elsewhere.", under="apps/ä shop/")
    repo.commit()
    assert at(repo, "HEAD", "apps/ä shop").digest == here(repo, "apps/ä shop") != at(repo, "HEAD").digest


def test_a_path_that_is_not_utf8_is_no_obstacle(repo: Repo) -> None:
    odd = os.fsdecode(b"caf\xe9")
    repo.prompt("Elsewhere.", under=f"{odd}/")
    repo.write(f"{odd}/prompts/{P}/{odd}.json", "{}")
    repo.commit()
    assert at(repo, "HEAD", odd).digest == here(repo, odd)
    assert len(history(repo.root / odd / "prompts", P, 50).commits) == 1


def test_a_detached_head_and_a_worktree_of_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    repo.git("checkout", "-q", "--detach")
    assert at(repo, "HEAD").digest == here(repo)
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    Repo(tmp_path / "bare.git").git("worktree", "add", "-q", str(tmp_path / "tree"), "main")
    tree = Repo(tmp_path / "tree")
    assert at(tree, "HEAD").digest == here(tree) == here(repo)


def test_an_sha256_repository(tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    repo.git("init", "-q", "--object-format=sha256")
    repo.prompt()
    repo.commit()
    assert at(repo, "HEAD").digest == here(repo)


def test_problems_are_named_by_ref_file_and_line(repo: Repo) -> None:
    repo.write(f"prompts/{P}/prompt.md", "---\nmodel: a/b\n---\nuser:\n{{ qestion }}\n")
    repo.commit()
    with pytest.raises(InvalidFile, match=r"^main:prompts/support/answer/prompt\.md:5: the variable 'qestion'"):
        at(repo, "main")
    repo.prompt()
    repo.write(f"prompts/{P}/tools/look_up.json", '{"name": }')
    repo.commit()
    with pytest.raises(InvalidFile) as caught:
        at(repo, "main")
    assert str(caught.value).startswith("main:prompts/support/answer/tools/look_up.json:1: ")


def test_a_misspelt_reference_names_the_nearest_file_of_that_commit(repo: Repo) -> None:
    repo.git("mv", f"prompts/{P}/tools/look_up.json", f"prompts/{P}/tools/lookup.json")
    repo.commit()
    with pytest.raises(InvalidFile, match=r"Did you mean 'tools/lookup\.json'\?"):
        at(repo, "main")


def test_a_ref_without_the_prompt_says_what_is_missing(repo: Repo) -> None:
    with pytest.raises(NotFound, match=r"main holds no prompt 'other': there is no prompts/other/prompt\.md in it"):
        Sides(None, repo.root / "prompts").find("other", "main")
    assert Sides(None, repo.root / "prompts").at("other", "main") is None


def test_a_misspelt_ref_names_the_nearest(repo: Repo) -> None:
    repo.git("branch", "friendly")
    with pytest.raises(NotFound, match=r"'frendly' is no version, .* Did you mean 'friendly'\?"):
        at(repo, "frendly")
    with pytest.raises(NotFound, match="`git fetch origin mian:refs/remotes/origin/mian`"):
        at(repo, "origin/mian")


def test_outside_of_git_there_is_no_ref(tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    repo.prompt()
    with pytest.raises(NotFound, match="nothing of support/answer is registered yet"):
        at(repo, "main")
    with pytest.raises(NotFound, match="is not in a git work tree, so there is no git ref 'main'"):
        at(repo, "git:main")
    assert history(repo.root / "prompts", P, 50).commits == ()


def test_a_version_that_is_not_there_may_be_a_tag(repo: Repo) -> None:
    repo.git("tag", "v7")
    with pytest.raises(NotFound, match="For a git ref of that name write git:v7"):
        at(repo, "v7")
    assert at(repo, "git:v7").digest == here(repo)


# shallow and filtered clones


def test_a_shallow_clone_says_what_is_missing_and_how_to_get_it(repo: Repo, tmp_path: Path) -> None:
    repo.git("branch", "release")
    repo.prompt("Two.")
    repo.commit()
    repo.git("clone", "-q", "--depth=1", "--single-branch", f"file://{repo.root}", str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert at(clone, "origin/main").digest == here(repo)
    with pytest.raises(NotFound) as caught:
        at(clone, "origin/release")
    command = "git fetch --depth=1 origin release:refs/remotes/origin/release"
    assert "this clone is shallow" in str(caught.value)
    assert f"`{command}` gets it" in str(caught.value)
    clone.git(*command.split()[1:])
    assert at(clone, "origin/release").digest == at(repo, "release").digest
    with pytest.raises(NotFound, match="`git fetch --unshallow` gets all of it"):
        at(clone, "HEAD~1")
    assert history(clone.root / "prompts", P, 50).cut == "shallow"


def test_a_filtered_clone_fetches_nothing_and_says_so(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.prompt("Two.")
    repo.commit()
    repo.git("clone", "-q", "--filter=blob:none", f"file://{repo.root}", str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert at(clone, "HEAD").digest == here(repo)
    with pytest.raises(Unusable, match="was cloned with a filter, and tidegate fetches nothing"):
        at(clone, "HEAD~1")
    with pytest.raises(NotFound, match="was cloned with a filter"):
        history(clone.root / "prompts", P, 50)


# the baseline that nobody named


def test_without_a_live_version_the_baseline_is_where_the_branch_began(repo: Repo) -> None:
    sides = Sides(None, repo.root / "prompts")
    one = here(repo)
    assert sides.fork(P) == (None, "nothing is live, and the prompt is the one of main")
    repo.git("checkout", "-q", "-b", "friendly")
    repo.prompt("Two.")
    repo.commit()
    repo.git("checkout", "-q", "main")
    repo.prompt("Main went on.")
    repo.commit()
    repo.git("checkout", "-q", "friendly")
    side, why = sides.fork(P)
    assert side is not None
    assert (side.digest, why) == (one, "nothing is live, so the baseline is where this branch left main")
    assert sides.fork("other")[1] == "nothing is live, and main does not hold this prompt yet"


def test_the_default_branch_is_the_one_of_origin(repo: Repo, tmp_path: Path) -> None:
    repo.git("branch", "-m", "trunk")
    repo.git("clone", "-q", f"file://{repo.root}", str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.prompt("Two.")
    side, why = Sides(None, clone.root / "prompts").fork(P)
    assert side is not None
    assert why.endswith("this branch left origin/trunk")


def test_an_unusable_fork_is_no_baseline(repo: Repo, tmp_path: Path) -> None:
    repo.write(f"prompts/{P}/prompt.md", "broken")
    repo.commit()
    repo.prompt()
    side, why = Sides(None, repo.root / "prompts").fork(P)
    assert side is None
    assert "prompts/support/answer/prompt.md:1" in why
    repo.git("checkout", "-q", "--orphan", "alone")
    repo.commit()
    assert "no common commit with main" in Sides(None, repo.root / "prompts").fork(P)[1]


# history


def test_history_holds_the_commits_that_changed_the_digest(repo: Repo) -> None:
    repo.write(f"prompts/{P}/golden.jsonl", '{"id": "a"}\n')
    repo.commit("only a golden set")
    repo.write("README.md", "elsewhere")
    repo.commit("elsewhere")
    repo.prompt("Two.")
    second = repo.commit("be friendly")
    repo.write(f"prompts/{P}/tools/look_up.json", '{"name": "look_up", "description": "Other.", "parameters": {}}')
    repo.commit("a tool says what it does")
    repo.write(f"prompts/{P}/prompt.md", "---\n")
    repo.commit("break it")
    repo.git("rm", "-rq", f"prompts/{P}")
    repo.commit("and remove it")
    found = history(repo.root / "prompts", P, 50)
    subjects = [commit.subject for commit in found.commits]
    assert subjects == ["and remove it", "break it", "a tool says what it does", "be friendly", "the first"]
    assert [commit.digest is None for commit in found.commits] == [True, True, False, False, False]
    assert found.commits[1].problem is not None
    assert ":prompts/support/answer/prompt.md:1: " in found.commits[1].problem
    assert (found.commits[3].id, found.commits[3].author) == (second, "Anna")
    assert found.commits[3].at == "2026-03-01T12:04:00.000000Z"
    assert found.cut is None


def test_a_judge_s_history_is_that_of_its_folder_beside_prompts(repo: Repo) -> None:
    for text in ("Be fair.", "Be strict."):
        repo.write("judges/tone/prompt.md", f"---\nmodel: p/m\n---\n{text}\n")
        repo.commit(text)
    found = history(repo.root / "prompts", "judges/tone", 50)
    assert [commit.subject for commit in found.commits] == ["Be strict.", "Be fair."]


def test_a_merge_is_in_the_history_only_when_it_made_something_new(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "friendly")
    repo.prompt("Two.")
    repo.commit("be friendly")
    repo.git("checkout", "-q", "main")
    repo.write(f"prompts/{P}/golden.jsonl", '{"id": "a"}\n')
    repo.commit("a golden set")
    repo.git("merge", "-q", "--no-edit", "friendly")
    subjects = [commit.subject for commit in history(repo.root / "prompts", P, 50).commits]
    assert subjects == ["be friendly", "the first"]


def test_history_is_bounded_and_says_so(repo: Repo) -> None:
    for number in range(5):
        repo.prompt(f"Text {number}.")
        repo.commit(f"edit {number}")
    found = history(repo.root / "prompts", P, 3)
    assert [commit.subject for commit in found.commits] == ["edit 4", "edit 3", "edit 2"]
    assert found.cut == "limit"
    assert history(repo.root / "prompts", P, 0).commits == ()


def test_a_repository_without_a_commit_has_no_history(tmp_path: Path) -> None:
    repo = Repo(tmp_path).init()
    repo.prompt()
    assert history(repo.root / "prompts", P, 50).commits == ()
    with pytest.raises(NotFound, match="git knows no such commit"):
        at(repo, "HEAD")
    assert Sides(None, repo.root / "prompts").fork(P)[0] is None


def test_an_odd_author_or_date_does_not_break_the_log(repo: Repo) -> None:
    repo.prompt("Two.")
    repo.git("add", "-A")
    tree = repo.git("write-tree")
    people = b"author \xe9\x1b[31m <a> 99999999999999 +0000\ncommitter x <x> 99999999999999 +0000\n\n\xff\n"
    raw = b"tree %s\nparent %s\n" + people
    (repo.root / "raw").write_bytes(raw % (tree.encode(), repo.git("rev-parse", "HEAD").encode()))
    repo.git("update-ref", "HEAD", repo.git("hash-object", "-t", "commit", "-w", "--literally", "raw"))
    newest = history(repo.root / "prompts", P, 50).commits[0]
    assert newest.at[:4] in ("9999", "1970")  # git's own limits differ between versions


# hostile repositories


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-x",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "main..other",
        "../../etc/passwd",
        "main:prompts",
        ":/text",
        "main other",
        "main\nHEAD",
        "main\0",
        "main\t",
        "\ud800",
        "x" * 256,
    ],
)
def test_what_can_be_no_ref_is_refused_before_git_is_called(
    repo: Repo, ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="can not be a git ref"):
        check_ref(ref)
    monkeypatch.setattr("tidegate.prompts.sides.Objects", None)
    with pytest.raises(BadInput):
        Sides(None, repo.root / "prompts").at(P, ref)


def test_no_program_that_a_repository_names_is_run(repo: Repo, tmp_path: Path) -> None:
    """Hooks, monitors, filters, signature checkers, pagers, diff drivers, transports: all leave a trace when run."""
    trace = tmp_path / "was-run"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\necho \"$0 $@\" >> '{trace}'\ncat\n")
    script.chmod(0o755)
    repo.prompt("Two.")
    repo.write(".gitattributes", "* filter=evil diff=evil\n")
    repo.commit()
    signed = repo.git("cat-file", "commit", "HEAD").replace("\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n\n", 1)
    (tmp_path / "raw").write_text(signed)
    repo.git("update-ref", "HEAD", repo.git("hash-object", "-t", "commit", "-w", str(tmp_path / "raw")))
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        hook = repo.root / ".git" / "hooks" / name
        hook.write_text(script.read_text())
        hook.chmod(0o755)
    for key, value in {
        "core.fsmonitor": str(script),
        "core.pager": str(script),
        "core.sshCommand": str(script),
        "core.askPass": str(script),
        "core.alternateRefsCommand": str(script),
        "filter.evil.clean": str(script),
        "filter.evil.process": str(script),
        "filter.evil.required": "true",
        "diff.external": str(script),
        "diff.evil.command": str(script),
        "diff.evil.textconv": str(script),
        "gpg.program": str(script),
        "log.showSignature": "true",
        "credential.helper": f"!{script}",
        "protocol.ext.allow": "always",
        "remote.origin.url": f"ext::{script}",
        "remote.origin.promisor": "true",
        "extensions.partialClone": "origin",
    }.items():
        repo.git("config", key, value)
    prompt = repo.root / "prompts" / P / "prompt.md"
    later = time.time() + 60
    os.utime(prompt, (later, later))  # so that `git status` has to look at what is in it
    at_head = at(repo, "HEAD")
    assert at_head.digest == here(repo)
    assert len(history(repo.root / "prompts", P, 50).commits) == 2
    Sides(None, repo.root / "prompts").fork(P)
    state = git_state(prompt.parent)
    assert state is not None
    assert not state.dirty
    with pytest.raises(NotFound):
        at(repo, "0123456789" * 4)
    blob = repo.git("rev-parse", f"HEAD:prompts/{P}/prompt.md")
    (repo.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()  # git would fetch it from its promisor
    with pytest.raises(Unusable, match="fetches nothing"):
        at(repo, "HEAD")
    assert not trace.exists(), trace.read_text()


def test_a_folder_that_poses_as_a_repository_is_a_folder(repo: Repo, tmp_path: Path) -> None:
    """A pull request can add files named HEAD, config and objects/: git would take that for a bare repository."""
    trace = tmp_path / "was-run"
    folder = repo.root / "prompts" / P
    Repo(folder).git("init", "-q", "--bare", ".")
    Repo(folder).git("config", "core.fsmonitor", f"touch '{trace}'")
    Repo(folder).git("config", "core.bare", "false")
    Repo(folder).git("config", "core.worktree", ".")
    assert git_state(folder) is None
    assert find_repository(folder) is None
    assert at(repo, "HEAD").digest == here(repo)
    assert not trace.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret.json", "real.json"])
def test_a_link_in_a_commit_is_refused_wherever_it_leads(repo: Repo, target: str) -> None:
    repo.write(f"prompts/{P}/real.json", '{"type": "object"}')
    schema = repo.root / "prompts" / P / "output.schema.json"
    schema.unlink()
    schema.symlink_to(target)
    repo.commit()
    with pytest.raises(InvalidFile, match=r"main:prompts/.*prompt\.md:4: .*'output\.schema\.json' is a symbolic link"):
        at(repo, "main")


@pytest.mark.parametrize(
    "name", ["prompts/support/answer/prompt.md", "prompts/support/answer/tools", "prompts/support"]
)
def test_a_link_on_the_way_is_refused_too(repo: Repo, name: str) -> None:
    path = repo.root / name
    path.rename(repo.root / "moved")
    path.symlink_to(repo.root / "moved")
    repo.commit()
    with pytest.raises(InvalidFile, match="is a symbolic link, or is reached through one"):
        at(repo, "main")


def test_a_submodule_is_not_entered(repo: Repo, tmp_path: Path) -> None:
    other = Repo(tmp_path / "other").init()
    other.write("answer/prompt.md", "x")
    other.commit()
    repo.git("rm", "-rq", "prompts/support")
    repo.git("submodule", "add", "-q", f"file://{other.root}", "prompts/support")
    repo.commit()
    with pytest.raises(InvalidFile, match="is in a submodule; tidegate reads the repository itself only"):
        at(repo, "main")


def test_nothing_of_a_submodule_is_run_either(repo: Repo, tmp_path: Path) -> None:
    """Git asks a submodule for its state in a process of its own, with that one's configuration."""
    other = Repo(tmp_path / "other").init()
    other.write("a", "x")
    other.write(".gitattributes", "* filter=evil\n")
    other.commit()
    repo.git("submodule", "add", "-q", f"file://{other.root}", "prompts/other")
    repo.commit()
    script = tmp_path / "monitor.sh"
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/was-run'\ncat\n")
    script.chmod(0o755)
    submodule = Repo(repo.root / "prompts/other")
    submodule.git("config", "filter.evil.clean", str(script))
    later = time.time() + 60
    os.utime(submodule.root / "a", (later, later))
    state = git_state(repo.root)
    assert state is not None
    assert not state.dirty
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("reference", ["../../../secret.json", "/etc/passwd", "tools/../../x.json", "a\\0b", ""])
def test_a_reference_that_leaves_the_folder_is_refused(repo: Repo, reference: str) -> None:
    repo.write("secret.json", "{}")
    file = repo.root / "prompts" / P / "prompt.md"
    repo.write(f"prompts/{P}/prompt.md", file.read_text().replace("output.schema.json", f'"{reference}"'))
    repo.commit()
    with pytest.raises(InvalidFile, match="must be the path of a file inside the prompt's folder"):
        at(repo, "main")


def test_a_huge_blob_is_refused_without_being_read(repo: Repo) -> None:
    repo.write(f"prompts/{P}/output.schema.json", b" " * (64 << 20))
    repo.commit()
    with pytest.raises(InvalidFile, match=r"output\.schema\.json: is larger than 1 MiB"):
        at(repo, "main")
    repo.write(f"prompts/{P}/output.schema.json", b'{"type": "object"}'.ljust(MAX_BYTES))
    repo.commit()
    assert at(repo, "main").digest == here(repo)
    assert len(history(repo.root / "prompts", P, 50).commits) == 3


def test_a_damaged_tree_is_one_sentence(repo: Repo) -> None:
    (repo.root / "raw").write_bytes(b"40000 prompts")
    bad = repo.git("hash-object", "-t", "tree", "-w", "--literally", "raw")
    commit = repo.git("commit-tree", "-m", "bad", repo.git("rev-parse", "HEAD^{tree}"))
    (repo.root / "raw").write_text(
        repo.git("cat-file", "commit", commit).replace(repo.git("rev-parse", "HEAD^{tree}"), bad)
    )
    repo.git("branch", "bad", repo.git("hash-object", "-t", "commit", "-w", "--literally", "raw"))
    with pytest.raises(Unusable, match="is damaged"):
        at(repo, "bad")


def test_a_replaced_commit_is_the_real_one(repo: Repo) -> None:
    one = here(repo)
    repo.prompt("Two.")
    repo.commit()
    repo.git("replace", "HEAD~1", "HEAD")
    assert at(repo, "HEAD~1").digest == one


def test_git_that_does_not_answer_in_time_is_given_up(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "TIMEOUT_S", 0.0)
    repository = find_repository(repo.root)
    assert repository is not None
    repository.git._seconds = 0.0
    with pytest.raises(Unusable, match="git did not answer within 0 s"), Objects(repository.git) as objects:
        objects.find("HEAD")


def test_without_git_a_project_works_as_outside_of_one(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_repository(repo.root) is None
    assert git_state(repo.root) is None


def test_a_folder_of_somebody_else_is_read_only_when_its_reader_trusts_it(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(git_module._ENVIRONMENT, "GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(BadInput, match=r"git config --global --add safe\.directory"):
        at(repo, "HEAD")
    assert git_state(repo.root) is None
    (tmp_path / ".gitconfig").write_text(f"[safe]\n\tdirectory = {repo.root}\n")
    assert at(repo, "HEAD").digest == here(repo)
    assert git_state(repo.root) is not None
