"""From a trained student to a bundle: graphs, tokenizer tables, verification."""
