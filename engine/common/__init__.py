"""What every part of `engine` needs: files, signals, progress bars."""
