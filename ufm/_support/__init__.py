"""What every room uses: where values from outside are checked, files, console, progress."""
