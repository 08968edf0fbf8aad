"""The page about the cells of a layer as colours."""
