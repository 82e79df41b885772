"""Prompts as files: nothing changes on the way there and back, and nothing else is touched."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import prompt_files
from cli.prompt_files import PromptFilesError
from shared.domain import versions
from shared.domain.versions import VersionBody
from shared.errors import Flaw
from tests.version_bodies import BODIES

VERSIONS = BODIES.map(versions.parse)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HELLO = {"role": "user", "content": "Hello {{ name }}\n"}
BODY: dict[str, Any] = {"model": "sim/echo", "systemInstruction": "Be kind.", "messages": [HELLO]}


def put(folder: Path, body: dict[str, Any], name: str = "Greeting") -> set[str]:
    """Write a prompt into a folder; answers the names of what is there."""
    prompt_files.write(folder, prompt_files.files(name, "", versions.parse(body)))
    return {path.name for path in folder.iterdir()}


def sentences(folder: Path) -> tuple[str, ...]:
    with pytest.raises(PromptFilesError) as refusal:
        prompt_files.read(folder)
    return refusal.value.sentences


@settings(max_examples=60, deadline=None)
@given(VERSIONS, NAMES, NAMES)
def test_a_prompt_comes_back_from_its_files_as_it_went(
    tmp_path_factory: pytest.TempPathFactory, version: VersionBody, name: str, description: str
) -> None:
    folder = tmp_path_factory.mktemp("prompts") / "greeting"
    made = prompt_files.files(name, description, version)

    prompt_files.write(folder, made)
    found = prompt_files.read(folder)

    assert (version, name, description) == (found.version, found.name, found.description)
    assert version == versions.parse(found.body)
    assert made == prompt_files.files(found.name, found.description, found.version)
    assert sorted(made) == sorted(path.name for path in folder.iterdir())


@given(VERSIONS)
def test_no_two_files_differ_in_case_only_and_none_leaves_the_folder(version: VersionBody) -> None:
    names = [*prompt_files.files(None, None, version)]

    assert len(names) == len({name.lower() for name in names})
    assert [] == [name for name in names if Path(name).name != name or name.startswith(".")]
    assert [] == [name for name in names if name.lower().split(".")[0] in {"con", "nul", "lpt1"}]


def test_templates_whose_names_differ_in_case_only_have_files_of_their_own() -> None:
    texts = {name: {"text": name} for name in ("Note", "NOTE", "note", "con")}
    version = versions.parse({"templates": {"main": BODY, **texts}})

    made = prompt_files.files(None, None, version)

    assert {"NOTE.md", "Note~2.md", "note~3.md", "~con.md"} == {
        name for name in made if not name.startswith(("main.", "prompt."))
    }


@given(BODIES)
def test_a_body_written_by_hand_says_the_same_as_what_is_sent_for_it(body: dict[str, Any]) -> None:
    version = versions.parse(body)

    sent = prompt_files.document(version)

    assert version == versions.parse(sent)
    assert json.loads(json.dumps(sent)) == sent


def test_each_text_is_a_file_of_its_own_that_ends_like_a_text_file(tmp_path: Path) -> None:
    names = put(tmp_path / "greeting", BODY)

    assert {"prompt.json", "main.system.md", "main.1.user.md"} == names
    assert b"Be kind.\n" == (tmp_path / "greeting/main.system.md").read_bytes()
    assert b"Hello {{ name }}\n\n" == (tmp_path / "greeting/main.1.user.md").read_bytes()
    assert {
        "name": "Greeting",
        "description": "",
        "model": "sim/echo",
        "systemInstruction": {"file": "main.system.md"},
        "messages": [{"role": "user", "content": {"file": "main.1.user.md"}}],
    } == json.loads((tmp_path / "greeting/prompt.json").read_text())


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), (b"\n", ""), (b"a", "a"), (b"a\n", "a"), (b"a\n\n", "a\n"), (b"a\r\n", "a\r")],
)
def test_one_newline_at_the_end_belongs_to_the_file_and_not_to_the_text(
    content: bytes, text: str, tmp_path: Path
) -> None:
    put(tmp_path / "greeting", BODY)
    (tmp_path / "greeting/main.system.md").write_bytes(content)

    found = prompt_files.read(tmp_path / "greeting")

    assert text == found.version.templates["main"].system_instruction


def test_texts_may_stand_in_the_settings_and_in_folders_below(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/user.txt").write_text("Hello {{ name }}\n\n")
    settings_text = {**BODY, "messages": [{"role": "user", "content": {"file": "texts/user.txt"}}]}
    (tmp_path / "prompt.json").write_text(json.dumps(settings_text))

    found = prompt_files.read(tmp_path)

    assert versions.parse(BODY) == found.version
    assert (None, None) == (found.name, found.description)


def test_files_of_texts_that_are_gone_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "greeting"
    put(folder, BODY)
    (folder / "README.md").write_text("Ours.")

    names = put(folder, {**BODY, "systemInstruction": None})

    assert {"prompt.json", "main.1.user.md", "README.md"} == names


def test_a_file_of_somebody_else_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "greeting"
    put(folder, BODY)
    (folder / "Notes.md").write_text("Do not lose me.")
    including = {"entrypoint": "main", "templates": {"main": BODY, "notes": {"text": "Hm."}}}

    with pytest.raises(PromptFilesError, match=r"^Notes\.md: This file is in the way"):
        put(folder, including)

    assert "Do not lose me." == (folder / "Notes.md").read_text()
    assert versions.parse(BODY) == prompt_files.read(folder).version


@pytest.mark.parametrize("name", ["../secret.txt", "link.md", "below/secret.txt"])
def test_no_file_outside_the_folder_is_read_or_taken_away(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "greeting"
    folder.mkdir()
    (folder / "link.md").symlink_to(secret)
    (folder / "below").symlink_to(tmp_path)
    (folder / "prompt.json").write_text(json.dumps({**BODY, "systemInstruction": {"file": name}}))

    said = sentences(folder)
    put(folder, BODY)

    assert (f"prompt.json: /systemInstruction: '{name}' is outside the prompt's folder.",) == said
    assert "secret" == secret.read_text()


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "greeting"
    put(folder, BODY)
    for name in ("main.system.md", "main.1.user.md", "prompt.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(victim)
        (folder / f"{name}.pulling").symlink_to(victim)
    (tmp_path / "elsewhere").symlink_to(tmp_path)

    with pytest.raises(PromptFilesError, match="in the way"):
        put(folder, BODY)
    with pytest.raises(PromptFilesError, match="is a link"):
        put(tmp_path / "elsewhere", BODY)

    assert "mine" == victim.read_text()


def test_all_that_is_wrong_is_said_with_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes(b"\xff")
    (tmp_path / "big.md").write_bytes(b"x" * (prompt_files.MAX_FILE_BYTES + 1))
    messages = [{"role": "user", "content": {"file": f"{name}.md"}} for name in ("latin", "big")]
    absent = {"file": "absent\0.md"}
    (tmp_path / "prompt.json").write_text(
        json.dumps({"messages": messages, "systemInstruction": absent})
    )

    latin, big, nul = sentences(tmp_path)

    assert "prompt.json: /messages/0/content: 'latin.md' is not UTF-8." == latin
    assert "prompt.json: /messages/1/content: 'big.md' is over 1,048,576 bytes." == big
    assert nul.startswith("prompt.json: /systemInstruction: 'absent\\x00.md' cannot be read")


def test_a_flaw_names_the_file_that_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "greeting"
    put(folder, BODY)
    found = prompt_files.read(folder)

    said = [found.where(Flaw(pointer, "No.")) for pointer in ("/messages/0/content", "/model", "")]

    assert ["main.1.user.md: No.", "prompt.json: /model: No.", "prompt.json: No."] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "This is not JSON"),
        ("[]", "Expected an object"),
        ("[" * 100_000, "This is not JSON"),
        ('{"model": 1, "model": 2}', "'model' stands twice in one object"),
        ('{"modelParams": {"temperature": NaN}}', "NaN is no number"),
        ('{"name": 1}', "/name: Expected a text"),
        ('{"publish": false}', "unknown field `publish`"),
        ('{"model": "sim/echo"}', "/messages: At least one message is needed."),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_sent(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "prompt.json").write_text(text)

    (sentence,) = sentences(tmp_path)

    assert said in sentence


@given(st.text(max_size=20))
def test_settings_are_read_or_refused_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "prompt.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    assert 1 == len(sentences(folder))
