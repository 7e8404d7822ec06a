"""Room of gravmap."""
