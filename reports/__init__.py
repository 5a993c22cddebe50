"""View model, templates and plots; reads result JSON only."""
