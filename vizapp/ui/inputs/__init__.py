"""The inputs of the user: networks, images, data sets, uploads."""
