"""Pages that open by a double click: a clip with its timeline, and a folder's clips in order."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tecafn.analyze.files import write_whole
from tecafn.analyze.timeline import (
    AI_ACT,
    MEASURES_ALONE,
    MEASURES_FUSED,
    ScoredUtterance,
    Scorer,
    TimedWord,
    Timeline,
)
from tecafn.analyze.trend import FAR, LEAST_CHANGE, QUOTED_WORDS

if TYPE_CHECKING:
    from tecafn.analyze.folder import ClipRank

_PAGES: Final = Path(__file__).parent / "page"
# Of the scale's half: what is called slight, what is called clear.
_SLIGHT, _CLEAR = 1 / 6, 1 / 2
# An effect of this share of the scale's half has the full colour; a word with a fifth of it a line.
_FULL_EFFECT: Final = 0.25
_LINED_EFFECT: Final = 0.4


def write_page(timeline: Timeline, clip: Path, path: Path, *, exports: Sequence[str]) -> None:
    """Write a clip's page.

    Args:
        timeline: of the clip.
        clip: the file, which the page plays where it lies.
        path: of the page.
        exports: names of files beside the page that it links to.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(path, render_page(timeline, _link(clip, path.parent), exports=exports).encode())


def render_page(timeline: Timeline, media: str, *, exports: Sequence[str] = ()) -> str:
    """A clip's page as HTML.

    Args:
        timeline: of the clip.
        media: the link that plays it.
        exports: names of files beside the page that it links to.
    """
    kinds = list(dict.fromkeys(track.kind for track in timeline.tracks))
    script = (_PAGES / "clip.js").read_text(encoding="utf-8")
    page: str = (
        _environment()
        .get_template("clip.html.j2")
        .render(
            timeline=timeline,
            media=media,
            files=(*exports, "timeline.json"),
            script=script,
            script_hash=_hash_for_policy(script),
            view=_embedded(view_of(timeline)),
            about=about(timeline.scorer),
            ai_act=AI_ACT,
            about_measures=_about_measures(timeline.scorer),
            moods=moods(timeline.scorer),
            kinds=kinds,
            measured=" and ".join(kinds).capitalize(),
        )
    )
    return page


def render_folder(folder: str, ranks: Sequence[ClipRank], scorer: Scorer) -> str:
    """The page that ranks a folder's clips, as HTML.

    Args:
        folder: its name.
        ranks: in their order.
        scorer: what gave the scores.
    """
    script = (_PAGES / "folder.js").read_text(encoding="utf-8")
    template = _environment().get_template("folder.html.j2")
    page: str = template.render(
        folder=folder,
        ranks=ranks,
        num_failed=sum(bool(rank.error) for rank in ranks),
        scorer=scorer,
        script=script,
        script_hash=_hash_for_policy(script),
        sign=lambda score: "" if score is None else _sign_of(score, scorer),
        spark_lines=lambda rank: spark_lines(rank.spark, scorer),
        spark_label=_spark_label,
    )
    return page


def spark_lines(spark: Sequence[tuple[float, float | None]], scorer: Scorer) -> list[str]:
    """Points of the lines of a trend in 200 x 40; the scale's middle is at 20.

    Example:
        >>> scorer = Scorer(name="a", identity="", trained_on="b", reads=("text",), low=-3, high=3)
        >>> spark_lines([(0.0, 3.0), (0.5, 0.0), (0.75, None), (1.0, -3.0)], scorer)
        ['0.0,1.0 100.0,20.0', '200.0,39.0']
    """
    half = (scorer.high - scorer.low) / 2
    lines: list[list[str]] = [[]]
    for share, score in spark:
        if score is None:
            lines.append([])
        else:
            lines[-1].append(f"{200 * share:.1f},{20 - 19 * (score - scorer.middle) / half:.1f}")
    return [" ".join(line) for line in lines if line]


def _spark_label(rank: ClipRank) -> str:
    values = [value for _, value in rank.spark if value is not None]
    if not values:
        return "no trend"
    ends = f"from {values[0]:+.2f} to {values[-1]:+.2f}"
    return f"trend {ends}, between {min(values):+.2f} and {max(values):+.2f}"


def _about_measures(scorer: Scorer) -> str:
    if scorer.reads == ("text",):
        return MEASURES_ALONE
    return MEASURES_FUSED.format(reads=", ".join(scorer.reads))


def view_of(timeline: Timeline) -> dict[str, Any]:
    """What the page's script needs; words are in the page itself."""
    scorer = timeline.scorer
    return {
        "duration": timeline.duration,
        "low": scorer.low,
        "high": scorer.high,
        "middle": scorer.middle,
        "moods": moods(scorer),
        "utterances": [
            [one.start, one.end, one.score, one.low, one.high, int(bool(one.doubts))]
            for one in timeline.utterances
        ],
        "trend": {
            "bandwidth": timeline.trend.bandwidth,
            "times": timeline.trend.times,
            "values": timeline.trend.values,
        },
        "turning": [vars_of(point) for point in timeline.turning_points],
        "gaps": [[gap.start, gap.end, gap.what] for gap in timeline.gaps],
        "doubtful": [[one.start, one.end] for one in timeline.low_confidence],
        "tracks": [
            {
                "name": track.name,
                "kind": track.kind,
                "unit": track.unit,
                "rate": track.frames_per_second,
                "values": track.values,
            }
            for track in timeline.tracks
        ],
        "rules": {
            "far": FAR,
            "least": LEAST_CHANGE * (scorer.high - scorer.low) / 2,
            "quoted": QUOTED_WORDS,
        },
    }


def vars_of(point: Any) -> dict[str, Any]:
    """A turning point for the script."""
    return {name: getattr(point, name) for name in ("time", "value", "kind", "change", "quote")}


def moods(scorer: Scorer) -> list[tuple[float, str]]:
    """Words for scores: (up to which score, word), rising.

    Example:
        >>> scorer = Scorer(name="a", identity="", trained_on="b", reads=("text",), low=-3, high=3)
        >>> moods(scorer)[2]
        (0.5, 'near neutral')
    """
    half = (scorer.high - scorer.low) / 2
    edges = [
        (-_CLEAR, "clearly negative"),
        (-_SLIGHT, "slightly negative"),
        (_SLIGHT, "near neutral"),
        (_CLEAR, "slightly positive"),
        (1.0, "clearly positive"),
    ]
    return [(round(scorer.middle + share * half, 4), word) for share, word in edges]


def about(scorer: Scorer) -> list[tuple[str, str]]:
    """What gave the scores, for a reader."""
    intervals = (
        "none: the model was not calibrated"
        if scorer.coverage is None
        else f"made to hold {100 * scorer.coverage:g} % of true scores (split conformal)"
    )
    languages = ", ".join(scorer.languages) or "unknown: no passage is called out of range"
    return [
        ("Model", scorer.name),
        ("Trained on", scorer.trained_on),
        ("Reads", ", ".join(scorer.reads)),
        ("Scale", f"{scorer.low:g} to {scorer.high:g}"),
        ("Intervals", intervals),
        ("Languages", languages),
    ]


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    Example:
        >>> clock(65.2), clock(3725)
        ('1:05', '1:02:05')
    """
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes.rjust(5, '0')}"


def _word_style(word: TimedWord, scorer: Scorer) -> dict[str, Any]:
    """How strongly a word is coloured, 0 to 1, and by which sign."""
    if word.effect is None:
        return {"strength": 0.0, "sign": "", "is_lined": False}
    full = _FULL_EFFECT * (scorer.high - scorer.low) / 2
    strength = min(abs(word.effect) / full, 1.0)
    sign = "pos" if word.effect > 0 else "neg"
    return {"strength": round(strength, 2), "sign": sign, "is_lined": strength >= _LINED_EFFECT}


def _sign(one: ScoredUtterance, scorer: Scorer) -> str:
    return "none" if one.score is None else _sign_of(one.score, scorer)


def _sign_of(score: float, scorer: Scorer) -> str:
    if score == scorer.middle:
        return "none"
    return "pos" if score > scorer.middle else "neg"


def _embedded(values: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _hash_for_policy(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _link(target: Path, folder: Path) -> str:
    """A relative link where there is one, so that the folder may move with the clip."""
    try:
        relative = os.path.relpath(target.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return target.resolve().as_uri()
    return quote(Path(relative).as_posix())


@cache
def _environment() -> Any:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    # The report's style sheet is the base of these pages'.
    loaders = [PackageLoader("tecafn.analyze", "page"), PackageLoader("tecafn.report", "templates")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=clock, link=quote)
    environment.globals.update(word_style=_word_style, sign_of=_sign)
    return environment
