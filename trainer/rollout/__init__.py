"""From prompts to verified rollouts."""
