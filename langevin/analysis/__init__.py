"""What streamed counts and sums mean: estimates with standard errors."""
