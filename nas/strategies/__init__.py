"""Which sub-networks a step of super-network training looks at: one file each."""
