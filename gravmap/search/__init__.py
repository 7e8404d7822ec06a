"""Architecture search: a supernet over operators, widths and paths, decoded into GGMNet architectures."""
