"""What a run is worth: metrics, significance, hard pairs, and the evaluator that predicts.

Only the evaluator needs torch; nothing is imported here, so that reports can do without it.
"""
