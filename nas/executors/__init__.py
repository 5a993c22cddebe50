"""Where evaluations run: one file each, its stem is the name in a spec."""
