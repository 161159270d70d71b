"""The first pass: faces, coefficients, expression and references of a clip, made once and kept."""
