"""Which group gets which format: optimal under budgets, from sensitivities and costs."""
