"""What README and docs say is there, compiles, loads, and is complete."""
