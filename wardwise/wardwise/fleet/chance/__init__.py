"""Plans on random days: the normal chain, scenarios, and certified punctuality."""
