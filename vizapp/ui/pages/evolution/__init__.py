"""The page During training."""
