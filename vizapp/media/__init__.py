"""Pictures as numpy arrays: opened, sampled, resized, drawn.

Uint8 `[H W 3]` RGB goes in and comes out everywhere; OpenCV's BGR and Pillow's images stay inside this package.
Nothing is imported here, so that importing one part does not pay for the others.
"""
