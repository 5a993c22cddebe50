"""Number formats, calibration, rounding and QDQ export."""
