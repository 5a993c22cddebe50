"""Spoken words as the keyword-spotting model hears them: 49 frames of 10 MFCCs.

The front end of the MLPerf Tiny reference: 30 ms windows every 20 ms, 40 mel
bands from 20 Hz to 4 kHz, logarithm, DCT, the first 10 coefficients. It was made
for 16 kHz; nothing above 4 kHz counts, so recordings at 8 kHz give the same
frequency bins with half the samples, and magnitudes are doubled to agree.
Mel scale: D. O'Shaughnessy, "Speech Communication", 1987.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal

Floats = npt.NDArray[np.float64]

SAMPLE_RATE = 8000
SAMPLES = SAMPLE_RATE  # one second
WINDOW = 240
HOP = 160
FFT = 256
FRAMES = 1 + (SAMPLES - WINDOW) // HOP
COEFFICIENTS = 10
MEL_BANDS = 40
LOWEST_HZ, HIGHEST_HZ = 20.0, 4000.0
FLOOR = 1e-6
MAGNITUDE_AT_16_KHZ = 2.0


def mfcc(recording: npt.NDArray[np.int16] | Floats) -> npt.NDArray[np.float32]:
    """Features of one recording.

    Args:
        recording: samples at 8 kHz, [n] with n >= 1; a second is used, silence is appended.

    Returns:
        [1, 49, 10]: channel, frame, coefficient. The loudest sample counts as 1.
    """
    samples = recording[:SAMPLES].astype(np.float64)
    loudest = samples.max()
    if loudest > 0:
        samples = samples / loudest
    samples = np.pad(samples, (0, SAMPLES - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    window = scipy.signal.get_window("hann", WINDOW)  # periodic
    magnitudes = MAGNITUDE_AT_16_KHZ * np.abs(scipy.fft.rfft(frames * window, FFT, axis=1))
    log_mel = np.log(magnitudes @ MEL_WEIGHTS + FLOOR)
    cepstrum = scipy.fft.dct(log_mel, type=2, axis=1) / np.sqrt(2 * MEL_BANDS)
    features: npt.NDArray[np.float32] = cepstrum[None, :, :COEFFICIENTS].astype(np.float32)
    return features


def mel_weights() -> Floats:
    """Triangular bands, evenly spaced in mel, [FFT bins, bands]; the constant bin is in none."""
    bins = _mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT)[:, None]
    edges = np.linspace(_mel(np.array(LOWEST_HZ)), _mel(np.array(HIGHEST_HZ)), MEL_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    weights[0] = 0
    return np.maximum(weights, 0)


def _mel(hertz: Floats) -> Floats:
    return 1127.0 * np.log1p(hertz / 700.0)


MEL_WEIGHTS = mel_weights()
