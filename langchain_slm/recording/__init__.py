"""S1: what the app's models were asked and what they answered, stored and read back."""
