"""Is a backbone coupled to its optimizer, or is it just the learning rate? One command answers."""
