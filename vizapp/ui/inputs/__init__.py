"""What people bring: networks, images, data sets, uploads."""
