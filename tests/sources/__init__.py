"""Sources: one contract, and what only one of them does."""
