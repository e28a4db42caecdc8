"""Off-policy evaluation: which estimator of a policy's value to trust, judged by the simulator itself."""
