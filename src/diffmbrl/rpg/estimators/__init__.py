"""The estimators of the policy gradient, one module per estimator: `ESTIMATOR`."""
