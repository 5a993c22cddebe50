"""Other packages that decide scales and zero points, in the place of the pipeline's own rules."""
