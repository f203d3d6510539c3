"""Seeded attacks on what the project promises: each tries many cases, and writes how many it tried and mishandled."""
