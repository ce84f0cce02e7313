"""Whether another computes the same: another framework, float64, another machine."""
