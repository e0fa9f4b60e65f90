"""The math and the networks of world models: imports torch only."""
