"""The business of the platform: types and rules, no input or output."""
