"""Training crops: drawn at random, read from native grids or tiles, augmented and resampled."""
