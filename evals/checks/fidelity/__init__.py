"""How far can the simulator be believed? `hmas calibrate` and `hmas eval fidelity`."""
