"""Memory: passes cut to fit, peaks measured, budgets reserved."""
