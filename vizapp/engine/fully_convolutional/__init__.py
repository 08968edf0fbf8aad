"""Dense prediction: a classifier converted to slide over an image of any size."""
