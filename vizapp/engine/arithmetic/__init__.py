"""How one number of a pass was computed: the sum that made it, and what each part of the layer below gave to it."""
