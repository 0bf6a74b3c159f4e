"""How well are operators' words understood? Cases, scores and `hmas eval words`."""
