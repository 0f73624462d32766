"""What Linux offers: one module per facility. Imports errors only."""
