"""The page Predict: a file for each kind of answer."""
