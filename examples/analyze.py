"""From a clip to a page with a timeline of its sentiment.

python examples/analyze.py --clip talk.mp4 --out runs/example-analyze
python examples/analyze.py          # of a recording that is made on the spot
"""

# %% [markdown]
# # Analyse a clip
# Words come from a transcript beside the clip, or are recognised. Voice and face are measured, the
# words scored, and the page shows how the sentiment runs and why. It needs `tecafn[video]`.

# %%
import argparse
import wave
from pathlib import Path

import numpy as np

from tecafn.analyze.clip import PAGE_FILE, analyze_clip
from tecafn.analyze.reading import ClipJob
from tecafn.analyze.scoring import open_model
from tecafn.extract.clip import ClipSettings

parser = argparse.ArgumentParser()
parser.add_argument("--clip", type=Path, help="a video or a recording")
parser.add_argument("--out", type=Path, default=Path("runs/example-analyze"))
options, _ = parser.parse_known_args()

# %% [markdown]
# Without a clip a hum stands for the voice, and a transcript beside it says when what is said.


# %%
def make_recording(path: Path) -> Path:
    """Twelve seconds that hum louder and higher in the middle, with three sentences."""
    rate, seconds = 16_000, 12
    time = np.arange(rate * seconds) / rate
    middle = np.exp(-(((time - 6) / 2) ** 2))
    sound = (0.1 + 0.2 * middle) * np.sin(2 * np.pi * np.cumsum(110 + 80 * middle) / rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    path.with_suffix(".srt").write_text(
        "1\n00:00:00,500 --> 00:00:03,500\nI had looked forward to it for weeks.\n\n"
        "2\n00:00:04,500 --> 00:00:07,500\nThen it was slow, and I was bored to tears.\n\n"
        "3\n00:00:08,500 --> 00:00:11,500\nBut the end is wonderful, I loved it.\n",
        encoding="utf-8",
    )
    return path


# %% [markdown]
# The clip is decoded in a process of its own, so a script needs the last cell's first line.

# %%
if __name__ == "__main__":
    clip = options.clip or make_recording(options.out / "talk.wav")
    model = open_model("builtin")
    job = ClipJob(path=clip, out=options.out / "page", settings=model.settings(ClipSettings()))
    timeline = analyze_clip(job, model)
    for said in timeline.utterances:
        score = "  ?  " if said.score is None else f"{said.score:+.2f}"
        print(f"{said.start:6.1f} s  {score}  {said.text}")
    for line in timeline.in_words():
        print(line)
    print(f"page: {job.out / PAGE_FILE}")
