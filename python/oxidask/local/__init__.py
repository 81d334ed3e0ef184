"""What a user's own interpreter runs: clusters of our programs on this machine, and experiments on them."""
