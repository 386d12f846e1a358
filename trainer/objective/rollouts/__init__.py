"""How a rollout batch is collected: which prompts, how many samples, which groups are kept."""
