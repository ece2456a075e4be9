"""Nouns as frozen values with codecs: pure, no I/O."""
