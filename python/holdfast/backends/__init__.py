"""One file or package for each store: requests in, its own commands and I/O, replies out."""
