"""Executors and workers of a cluster killed at random under a program whose result is checked."""
