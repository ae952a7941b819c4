"""Tests of the action layer."""
