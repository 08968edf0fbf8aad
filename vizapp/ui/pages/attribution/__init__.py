"""The page Attribution."""
