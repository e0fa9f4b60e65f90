"""The maths and the networks of world models: imports torch only."""
