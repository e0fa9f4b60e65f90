"""The papers' benchmark suites by name."""
