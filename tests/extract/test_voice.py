"""Voice measures on sounds whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sounds
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.extract.voice import COLUMNS, Measures, measures, signal


def middle(found: Measures, name: str) -> float:
    """The median of a measure over the voiced frames away from the ends."""
    inner = found.values[10:-10]
    voiced = inner[:, COLUMNS.index("voiced")] > 0
    assert voiced.any(), "nothing is voiced"
    return float(np.median(inner[voiced, COLUMNS.index(name)]))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("frequency_hz", [75.0, 120.0, 220.0, 440.0])
def test_a_tone_has_its_own_frequency_at_every_rate(rate_hz: int, frequency_hz: float) -> None:
    found = measures(sounds.sine(frequency_hz, rate_hz=rate_hz), rate_hz)
    assert len(found.times) == 100
    assert middle(found, "f0_hz") == pytest.approx(frequency_hz, rel=0.005)
    assert found.column("voiced")[3:-3].all()


@pytest.mark.parametrize("frequency_hz", [80.0, 125.0, 210.0, 400.0])
def test_a_vowel_has_the_frequency_of_its_pulses_and_no_octave_of_it(frequency_hz: float) -> None:
    found = measures(sounds.through_formants(sounds.train(frequency_hz)), 16_000)
    f0 = found.column("f0_hz")[10:-10]
    assert f0 == pytest.approx(np.full(80, frequency_hz), rel=0.01)


def test_f0_follows_a_glide() -> None:
    wanted = np.linspace(110, 220, 200)
    phase = np.cumsum(np.linspace(110, 220, 32_000) / 16_000)
    glide = np.sin(2 * np.pi * phase) + 0.5 * np.sin(4 * np.pi * phase)
    found = measures(0.3 * glide, 16_000)
    assert found.column("f0_hz")[5:-5] == pytest.approx(wanted[5:-5], rel=0.02)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_formants_are_those_of_the_filter(rate_hz: int) -> None:
    vowel = sounds.through_formants(sounds.train(110, rate_hz=rate_hz), rate_hz=rate_hz)
    found = measures(vowel, rate_hz)
    for number, wanted in enumerate(sounds.FORMANTS_HZ[:3], start=1):
        assert middle(found, f"formant{number}_hz") == pytest.approx(wanted, rel=0.04)


def test_formants_tell_i_from_a() -> None:
    narrow = (60.0, 90.0, 130.0, 160.0, 200.0)
    i = sounds.through_formants(
        sounds.train(120), formants_hz=(280, 2250, 2900, 3500, 4500), bandwidths_hz=narrow
    )
    found = measures(i, 16_000)
    assert middle(found, "formant1_hz") == pytest.approx(280, rel=0.1)
    assert middle(found, "formant2_hz") == pytest.approx(2250, rel=0.03)


@pytest.mark.parametrize("silence", [np.zeros(16_000), np.full(16_000, 0.25)])
def test_silence_is_unvoiced_faint_and_finite(silence: NDArray[np.float64]) -> None:
    found = measures(silence - silence.mean(), 16_000)
    assert np.isfinite(found.values).all()
    assert not found.column("voiced").any()
    assert not found.column("f0_hz").any()
    assert found.column("energy_db") == pytest.approx(np.full(100, -100.0))


def test_an_offset_changes_neither_pitch_nor_voicing() -> None:
    vowel = sounds.through_formants(sounds.train(140)) * 0.5
    plain, offset = measures(vowel, 16_000), measures(vowel + 0.3, 16_000)
    assert (plain.column("voiced") == offset.column("voiced")).mean() > 0.95
    assert middle(offset, "f0_hz") == pytest.approx(140, rel=0.01)


def test_noise_is_not_voiced() -> None:
    found = measures(sounds.noise(2.0), 16_000)
    assert found.column("voiced").mean() < 0.1
    assert np.isfinite(found.values).all()


def test_clipping_leaves_the_pitch() -> None:
    vowel = np.clip(8 * sounds.through_formants(sounds.train(130)), -1, 1)
    found = measures(vowel, 16_000)
    assert np.isfinite(found.values).all()
    assert middle(found, "f0_hz") == pytest.approx(130, rel=0.01)


def test_a_pause_between_two_tones_is_unvoiced() -> None:
    tone = sounds.through_formants(sounds.train(150, 0.5))[:8_000]
    found = measures(np.concatenate([tone, np.zeros(8_000), tone]), 16_000)
    voiced = found.column("voiced")
    assert voiced[5:40].all()
    assert not voiced[60:95].any()
    assert voiced[110:140].all()


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_hnr_is_the_ratio_of_harmonic_to_noise_energy(snr_db: float) -> None:
    tone = sounds.sine(200) + sounds.sine(400)
    power = float((tone**2).mean())
    hiss = sounds.noise()
    hiss *= np.sqrt(power / 10 ** (snr_db / 10) / (hiss**2).mean())
    assert middle(measures(tone + hiss, 16_000), "hnr_db") == pytest.approx(snr_db, abs=1.5)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.02])
def test_jitter_is_how_much_periods_differ(share: float) -> None:
    periods = 120 * (1 + share * np.random.default_rng(0).uniform(-1, 1, 120))
    wanted = float(np.abs(np.diff(periods)).mean() / periods.mean())
    found = measures(sounds.through_formants(sounds.pulses(periods)), 16_000)
    assert middle(found, "jitter") == pytest.approx(wanted, rel=0.25, abs=0.001)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_shimmer_is_how_much_amplitudes_differ(share: float) -> None:
    heights = 1 + share * np.random.default_rng(0).uniform(-1, 1, 120)
    wanted = float(np.abs(np.diff(heights)).mean() / heights.mean())
    train = sounds.pulses(np.full(120, 130.0), heights)
    wide = (300.0, 300.0)  # so that a period has died away before the next
    vowel = sounds.through_formants(train, formants_hz=(800.0, 2200.0), bandwidths_hz=wide)
    assert middle(measures(vowel, 16_000), "shimmer") == pytest.approx(wanted, abs=0.015)


def quotients(flow: NDArray[np.float64], frequency_hz: float) -> tuple[float, float]:
    """NAQ and QOQ from their definitions, of a flow that is known."""
    period = 16_000 / frequency_hz
    steepest = -np.diff(flow).min()
    amplitude = flow.max() - flow.min()
    return amplitude / (steepest * period), float((flow > flow.min() + amplitude / 2).mean())


@pytest.mark.parametrize("open_quotient", [0.45, 0.6, 0.8])
def test_glottal_measures_are_near_those_of_the_source(open_quotient: float) -> None:
    flow, derivative = sounds.glottal_pulses(110, open_quotient)
    naq, qoq = quotients(flow, 110)
    found = measures(sounds.through_formants(derivative), 16_000)
    assert middle(found, "naq") == pytest.approx(naq, rel=0.35)
    assert middle(found, "qoq") == pytest.approx(qoq, abs=0.12)


def test_a_breathier_source_has_higher_naq_h1_h2_and_psp() -> None:
    pressed, breathy = (
        measures(sounds.through_formants(sounds.glottal_pulses(120, quotient)[1]), 16_000)
        for quotient in (0.4, 0.85)
    )
    for name in ("naq", "qoq", "h1_h2_db", "psp"):
        assert middle(breathy, name) > middle(pressed, name), name


@pytest.mark.parametrize("per_second", [2.0, 4.0, 6.0])
def test_speech_rate_counts_syllables(per_second: float) -> None:
    found = measures(sounds.syllables(per_second), 16_000)
    rate = found.column("syllables_per_second")
    assert float(np.median(rate)) == pytest.approx(per_second, abs=0.5)


def test_loudness_moves_the_level_and_the_first_coefficient_alone() -> None:
    vowel = sounds.through_formants(sounds.train(150)) + sounds.noise() * 0.02
    loud, soft = measures(vowel, 16_000), measures(vowel / 10, 16_000)
    difference = np.median((loud.values - soft.values)[10:-10], axis=0)
    for name, moved in zip(COLUMNS, difference, strict=True):
        if name == "energy_db":
            assert moved == pytest.approx(20, abs=0.01)
        elif name == "mfcc_0":
            assert moved == pytest.approx(np.log(100) * np.sqrt(40), rel=0.01)
        else:
            assert moved == pytest.approx(0, abs=0.02), name


def test_the_spectrum_of_a_tone_lies_at_its_frequency() -> None:
    found = measures(sounds.sine(1_000), 16_000)
    inner = found.values[10:-10].mean(axis=0)
    value = dict(zip(COLUMNS, inner.tolist(), strict=True))
    assert value["centroid_hz"] == pytest.approx(1_000, abs=10)
    assert value["rolloff_hz"] == pytest.approx(1_000, abs=40)
    assert value["spread_hz"] < 60
    assert value["flatness"] < 0.01
    assert value["zero_crossings_hz"] == pytest.approx(2_000, rel=0.03)
    assert value["energy_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)


def test_noise_is_flat_and_bright() -> None:
    found = measures(sounds.noise(), 16_000)
    assert float(found.column("flatness").mean()) > 0.4
    assert float(found.column("centroid_hz")[5:-5].mean()) == pytest.approx(4_000, rel=0.05)
    assert float(found.column("alpha_ratio_db")[5:-5].mean()) == pytest.approx(
        10 * np.log10(950 / 4_000), abs=1
    )


def test_channels_are_averaged_and_integers_scaled() -> None:
    vowel = sounds.through_formants(sounds.train(150))
    stereo = np.column_stack([vowel * 1.5, vowel * 0.5])
    integers = np.round(vowel * 32_767).astype(np.int16)
    plain = measures(vowel, 16_000)
    assert measures(stereo, 16_000).values == pytest.approx(plain.values, rel=1e-3, abs=1e-2)
    close = measures(integers, 16_000)
    assert close.column("f0_hz") == pytest.approx(plain.column("f0_hz"), rel=1e-3)
    assert close.column("energy_db")[10:-10] == pytest.approx(
        plain.column("energy_db")[10:-10], abs=0.01
    )


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 161, 400, 700])
def test_very_short_sounds_have_a_frame_per_ten_milliseconds(num_samples: int) -> None:
    found = measures(np.ones(num_samples), 16_000)
    assert found.values.shape == (-(-num_samples // 160), len(COLUMNS))
    assert np.isfinite(found.values).all()


def test_times_are_the_middles_of_frames_on_the_clips_clock() -> None:
    found = measures(np.zeros(480), 16_000, start=1.25)
    assert found.times == pytest.approx([1.255, 1.265, 1.275])


def test_pieces_of_any_length_give_the_same_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    speech = np.concatenate([sounds.syllables(4.0, 1.5), sounds.noise(0.5)])
    whole = measures(speech, 16_000)
    monkeypatch.setattr(signal, "_BLOCK_FRAMES", 37)
    assert measures(speech, 16_000).values == pytest.approx(whole.values, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("sound", "rate_hz", "said"),
    [
        (np.zeros(100), 4_000, "8000 to 192000"),
        (np.zeros((2, 3, 4)), 16_000, "(2, 3, 4)"),
        (np.array([0.0, np.nan, np.inf]), 16_000, "2 that are NaN or infinite"),
        (np.array([True, False]), 16_000, "bool"),
    ],
)
def test_sound_that_is_none_is_refused(sound: NDArray[np.float64], rate_hz: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        measures(sound, rate_hz)
    assert said in str(caught.value)


# Praat, where it is installed


@pytest.fixture(params=["vowel", "syllables", "pressed"])
def voice(request: pytest.FixtureRequest) -> NDArray[np.float64]:
    made: dict[str, Callable[[], NDArray[np.float64]]] = {
        "vowel": lambda: sounds.through_formants(sounds.train(120)),
        "syllables": lambda: sounds.syllables(4.0, 2.0),
        "pressed": lambda: sounds.through_formants(sounds.glottal_pulses(180, 0.5)[1]),
    }
    return made[str(request.param)]()


def test_praat_finds_the_same_pitch_and_formants(voice: NDArray[np.float64]) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    sound = parselmouth.Sound(voice, 16_000)
    found = measures(voice, 16_000)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=60.0, pitch_ceiling=500.0)
    formant = sound.to_formant_burg(time_step=0.01, maximum_formant=5000.0)
    theirs = np.nan_to_num([pitch.get_value_at_time(t) or 0.0 for t in found.times])
    ours = found.column("f0_hz")
    assert ((ours > 0) == (theirs > 0)).mean() > 0.9
    both = (ours > 0) & (theirs > 0)
    assert ours[both] == pytest.approx(theirs[both], rel=0.02)
    for number in (1, 2, 3):
        praat = np.array([formant.get_value_at_time(number, t) for t in found.times[both]])
        mine = found.column(f"formant{number}_hz")[both]
        assert np.nanmedian(np.abs(mine / praat - 1)) < 0.05
