"""Everything only a GPU can show, checked and timed by one command; see `__main__`."""
