"""qa-edge: distil an extractive question answerer into a small QANet, export it, measure it."""
