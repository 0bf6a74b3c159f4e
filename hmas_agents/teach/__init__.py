"""How is the embedded model taught operators' words? Phrasings, training, adapter, merging."""
