"""The programs behind the scripts, with their flags."""
