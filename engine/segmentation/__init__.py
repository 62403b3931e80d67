"""Cuts long recordings with imperfect transcripts into utterances to train on."""
