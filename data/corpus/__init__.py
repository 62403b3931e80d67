"""Corpora as people have them: manifests, trees and tables to lists of utterances."""
