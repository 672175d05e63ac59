"""Named experiments, each from its runs to data, table and figure."""
