"""Networks that are trained: loading one, and predicting with it."""
