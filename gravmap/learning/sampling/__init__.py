"""Training crops: drawn at random, cut from native grids or tiles, augmented and resampled."""
