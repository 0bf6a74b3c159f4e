"""The five-minute proof: one server, default order against H-MAS, side by side."""
