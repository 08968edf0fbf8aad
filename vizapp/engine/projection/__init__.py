"""Projections of a unit down to the image: deconvnet, guided backpropagation, gradient."""
