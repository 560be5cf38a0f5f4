"""What tools leave in sentences is undone where it has one reading, and said where it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tecafn.data.importing import import_dataset
from tecafn.data.sentences import TextSurvey
from tecafn.data.text_signs import listed_words, sign_of

SENTENCES = [f"the plot wasn't thin, {n} of us loved it" for n in range(20)]


@pytest.mark.parametrize("write", [lambda words: str(words), json.dumps, lambda w: str(tuple(w))])
def test_lists_of_words_are_joined(
    write_table: Callable[..., Path], tmp_path: Path, write: Callable[[list[str]], str]
) -> None:
    rows = [
        (f"v{n // 4}", str(n % 4 + 1), write(text.split()), f"{n / 4 - 2:g}", "train")
        for n, text in enumerate(SENTENCES)
    ]
    table = write_table(("video_id", "clip_id", "text", "label", "mode"), *rows)
    store = import_dataset(table, format=None, out=tmp_path / "store")
    assert list(store.split("train").texts) == SENTENCES
    assert any("20 of 20 texts were lists of words" in note for note in store.manifest["notes"])
    assert store.manifest["warnings"] == []


def test_entities_are_characters_again_where_more_than_a_few_texts_have_them() -> None:
    survey = TextSurvey("B&amp;B isn&#39;t &amp;quot;it&amp;quot;" for _ in range(5))
    assert survey.mend("B&amp;B isn&#39;t &amp;quot;it&amp;quot;") == 'B&B isn\'t "it"'
    assert "5 of 5 texts had entities of HTML (&amp;), which are characters again" in survey.notes()
    few = TextSurvey(["a B&amp;B", *SENTENCES])
    assert few.mend("a B&amp;B") == "a B&amp;B"
    assert few.notes() == (
        "1 of 21 texts had entities of HTML (&amp;), which are kept as they are",
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda n: f"[CLS] {SENTENCES[n]} [SEP]", "a tokenizer's marks"),
        (lambda n: SENTENCES[n].replace("loved", "lov ##ed"), "a tokenizer's marks"),
        (lambda n: "\u2581" + SENTENCES[n].replace(" ", " \u2581"), "a tokenizer's marks"),
        (lambda n: f"Raw/v{n // 4}/{n}.mp4", "the name of a file"),
        (lambda n: f"v_{n}.annotprocessed", "the name of a file"),
        (lambda n: f"1\n00:00:0{n % 9},000 --> 00:00:09,500\n{SENTENCES[n]}", "time codes"),
        (lambda n: f"101 2023 {2000 + n} 102", "numbers alone"),
        (lambda n: json.dumps({"text": SENTENCES[n]}), "JSON"),
        (lambda n: f"<p>{SENTENCES[n]}</p>", "markup"),
        (lambda n: SENTENCES[n].replace("'", r"\u2019"), "escapes"),
        (lambda n: SENTENCES[n] + r"\n", "escapes"),
        (lambda n: SENTENCES[n].replace(" ", "%20"), "%20"),
        (lambda n: SENTENCES[n].replace(" ", "_"), "words without blanks"),
        (lambda n: SENTENCES[n].replace("'", "\u2019").encode().decode("cp1252"), "read in ano"),
        (lambda n: "\u4eca\u5929\u771f\u597d".encode().decode("latin-1") + f" {n}", "read in ano"),
        (lambda n: "positive" if n % 2 else "negative", "nothing but a label"),
        (lambda n: "this is a movie review", "text is the same in 20 of 20 samples"),
    ],
)  # fmt: skip
def test_texts_that_are_no_sentences_are_said(spoil: Callable[[int], str], said: str) -> None:
    survey = TextSurvey()
    for n in range(20):
        survey.add(spoil(n), where=f"row {n}")
    (doubt,) = survey.doubts()
    assert said in doubt
    assert "in 20 of 20 samples" in doubt


@pytest.mark.parametrize(
    "text",
    [
        "It was 10/10, I'd go again at 8:30.", "[laughs] so good (really)", "R&D; and AT&T",
        "caf\u00e9 na\u00efve, it\u2019s fine \u2026", "\u4eca\u5929\u771f\u597d",
        "C# and #1, 50% off", "Positive vibes", "so-so", "Yes!", "<3 it", "sooooooooooooo good",
        "\u65e9\u4e0a\u597d\u554a\uff0c\u4f60\u5403\u4e86\u5417", "\u00dcbel, ganz \u00fcbel",
    ],
)  # fmt: skip
def test_what_people_say_is_a_sentence(text: str) -> None:
    assert sign_of(text) is None
    assert listed_words(text) is None
