"""Small datasets, maps, networks and servers that several test files share."""
