"""Finished work on disk: files that say what they were made from, and are whole or absent."""
