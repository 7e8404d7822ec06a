"""Pictures of a map and the page that explains it."""
