"""What tidegate costs, measured from a checkout."""
