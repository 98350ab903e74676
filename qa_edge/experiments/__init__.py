"""Experiments: named sets of ordinary runs, their results, and the paper's tables from whatever runs there are."""
