"""Commands as functions: training, evaluation, prediction and comparisons, each in a folder."""
