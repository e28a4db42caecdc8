"""How true the simulator is to people whose ratings it has not seen."""
