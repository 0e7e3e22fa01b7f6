"""The user's model: its module, its data, one trace of it, and its latents on the unconstrained scale."""
