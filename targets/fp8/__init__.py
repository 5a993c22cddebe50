"""Targets that deploy the exported QDQ file with 8-bit floats as it is, and torch to run one."""
