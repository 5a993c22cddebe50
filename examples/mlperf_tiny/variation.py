"""Recordings as they might have been, so that a small network learns from more than 1,680.

After T. Ko et al., "Audio Augmentation for Speech Recognition" (Interspeech 2015): resampling
changes tempo and pitch at once. The speakers, the room and the word remain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.signal

SPEED_PERCENT = 15
TILT = 0.3
SHIFT = 160  # samples: 20 ms
NOISE_POWERS = (-4.0, -1.5)  # of ten, times the loudest sample: -80 to -30 dB


def varied(
    recording: npt.NDArray[np.int16], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Faster or slower, brighter or duller, a little earlier or later, in a little noise.

    Args:
        recording: [n], n >= 1.

    Returns:
        [m], m >= 1, not rounded.
    """
    speed = int(generator.integers(100 - SPEED_PERCENT, 100 + SPEED_PERCENT, endpoint=True))
    samples = scipy.signal.resample_poly(recording.astype(np.float64), 100, speed)
    samples = scipy.signal.lfilter([1.0, generator.uniform(-TILT, TILT)], 1.0, samples)
    later = int(generator.integers(-SHIFT, SHIFT, endpoint=True))
    samples = np.pad(samples, (max(later, 0), 0))[min(max(-later, 0), len(samples) - 1) :]
    noise = np.abs(samples).max() * 10.0 ** generator.uniform(*NOISE_POWERS)
    found: npt.NDArray[np.float64] = samples + noise * generator.standard_normal(len(samples))
    return found
