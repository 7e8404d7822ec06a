"""The record of a map: what it was made of, its STAC item, and the check of both."""
