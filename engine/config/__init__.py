"""A config's fields: flags, validation, and the components that they build."""
