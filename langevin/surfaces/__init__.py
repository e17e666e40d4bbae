"""Loss surfaces: formulas, named wells, and sums over data."""
