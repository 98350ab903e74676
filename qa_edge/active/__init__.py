"""Active learning: which questions are worth labelling (Boreshban et al., section 4.2)."""
