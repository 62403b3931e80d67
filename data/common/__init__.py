"""What every part of `data` needs: errors, files, storage, pages."""
