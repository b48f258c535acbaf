"""Set-up, administration and metrics, behind the data plane."""
