"""What every network and every stage costs, against baselines in the same run."""
