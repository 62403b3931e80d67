"""Files, signals and progress bars that all packages of engine use."""
